"""A look inside for people, in a terminal: lines, files, what each line changed, what is wasted. Extra: `ui`.

`model` says what there is, on `looking` and the library's public names; `app` shows it, with textual.
"""
