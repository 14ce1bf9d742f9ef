"""`python -m wsi_nuc` is `wsi-nuc`."""

from wsi_nuc.cli import main

if __name__ == "__main__":
    main()
