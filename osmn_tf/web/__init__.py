"""Serves the page on which objects are clicked and tracked in the browser; the page itself is built from `web/`."""

from osmn_tf.web.server import PageServer, find_page

__all__ = ["PageServer", "find_page"]
