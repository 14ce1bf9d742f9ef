"""The model without a network: haematoxylin, blobs, a bounded flood, and a rule of thumb for the class."""
