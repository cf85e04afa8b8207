"""`make demo`: an image of real Debian packages, built, saved, loaded, changed and looked into with layerstore."""
