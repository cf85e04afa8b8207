"""The store as a page for a browser, to be looked at and not altered.

`app` is a WSGI application: which request is answered by what, and who may ask (`guard`). `documents` is what the
page is told, as JSON, all of it by the store's public names; `lists` keeps what is listed, and knows when it is old.
The page lies in `page/`: HTML, style and scripts as they are sent. It runs on the server of `faces.serve`.
"""

from layerstore.faces.ui.app import Page

__all__ = ["Page"]
