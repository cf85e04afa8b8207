"""Volumes: folders of their own that containers mount and no layer holds."""
