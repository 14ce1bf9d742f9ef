"""One reader per published layout of labelled images; `datasets.registry` lists them."""
