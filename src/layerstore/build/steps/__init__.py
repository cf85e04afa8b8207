"""What a build does, stage by stage and line by line: programs that are run, files that are copied, what is kept."""
