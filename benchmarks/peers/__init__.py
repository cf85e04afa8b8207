"""Every kind of work that people have for such a tool, beside the tools that they have today, in one run."""
