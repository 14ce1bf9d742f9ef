"""Results to look at in a browser: a server on this machine alone, which only reads, and the page that it serves.

The page is built from `viewer-web` with Node; what was built lies in `static` and is shipped with the package.
"""
