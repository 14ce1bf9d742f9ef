"""InstaSAM: nuclei from dots alone. A frozen encoder with adapters, and a decoder of foreground and distances."""
