"""The public Python interface: `wsi_nuc.open` and `wsi_nuc.segment`."""
