"""layerstore against its peers and against what the machine can do at all. See README.md in this folder."""
