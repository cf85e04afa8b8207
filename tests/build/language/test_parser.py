"""The parser that the language stands on, held to what BuildKit's does: words, variables, lines, heredocs.

It is somebody else's port. A new version that reads a Dockerfile in another way fails here, not in somebody's image.
"""

import pytest
from e2b_dockerfile_utils import (
    DockerfileSyntaxError,
    PatternMatcher,
    ShellLex,
    parse_dockerfile_ast,
    parse_heredoc,
    parse_words,
)

VARIABLES = {"HOME": "/root", "SH": "bash", "EMPTY": "", "W": "one two", "ABC": "abcabc", "STAR": "a*b", "Ü": "umlaut"}

# A word, and what it becomes; None: it is refused.
WORDS = {
    "plain": "plain",
    "a'b'c": "abc",
    "a'b": None,
    "a\\'b": "a'b",
    "a\\\\'b": None,
    "a\\tb": "atb",
    '"a\\tb"': "a\\tb",
    '"a\\\\tb"': "a\\tb",
    "'a\\tb'": "a\\tb",
    "end\\": "end",
    "end\\\\": "end\\",
    '"open': None,
    '"open\\"': None,
    '"it\'s"': "it's",
    "'open": None,
    "'end\\'": "end\\",
    "\"''\"": "''",
    "'\"\"'": '""',
    '""': "",
    "''": "",
    'a""b': "ab",
    "\"a\"'b'c": "abc",
    "a b": "a b",
    "<": "<",
    "<<E": "<<E",
    "a#b": "a#b",
    # Variables.
    "$HOME": "/root",
    "x$HOME/y": "x/root/y",
    "${HOME}y": "/rooty",
    "'$HOME'": "$HOME",
    '"$HOME"': "/root",
    "\\$HOME": "$HOME",
    "\\\\$HOME": "\\/root",
    '"\\$HOME"': "$HOME",
    "$UNSET": "",
    "a${UNSET}b": "ab",
    "$EMPTY": "",
    "$.": "$.",
    "$": "$",
    "a$1b": "ab",
    "$12x": "x",
    "$@": "",
    "$HOMEx": "",
    "$Ü": "umlaut",
    "$W": "one two",
    "${": None,
    "${}": None,
    "${HOME": None,
    "${:x}": None,
    "${{x}}": None,
    "\\${}": "${}",
    # Operators.
    "${SH:-d}": "bash",
    "${SH-d}": "bash",
    "${UNSET:-d}": "d",
    "${UNSET-d}": "d",
    "${EMPTY:-d}": "d",
    "${EMPTY-d}": "",
    "${UNSET:-}": "",
    "${UNSET:-$SH}": "bash",
    "${UNSET:-${SH:+x}}": "x",
    "${UNSET:-'a b'}": "a b",
    "${UNSET:-a\\}b}": "a}b",
    "${SH:+d}": "d",
    "${SH+d}": "d",
    "${UNSET:+d}": "",
    "${EMPTY:+d}": "",
    "${EMPTY+d}": "d",
    "${SH:?d}": "bash",
    "${UNSET:?d}": None,
    "${UNSET?d}": None,
    "${EMPTY:?d}": None,
    "${EMPTY?d}": "",
    "${ABC#a}": "bcabc",
    "${ABC#a*c}": "abc",
    "${ABC##a*c}": "",
    "${ABC#x}": "abcabc",
    "${ABC#?b}": "cabc",
    "${ABC%c}": "abcab",
    "${ABC%b*}": "abca",
    "${ABC%%b*}": "a",
    "${ABC%%x*}": "abcabc",
    "${STAR#a\\*}": "b",
    "${STAR%\\*b}": "a",
    "${ABC/b/x}": "axcabc",
    "${ABC//b/x}": "axcaxc",
    "${ABC/b*/}": "a",
    "${ABC//b/}": "acac",
    "${HOME/\\//:}": ":root",
    "${ABC/b/$SH}": "abashcabc",
    "${UNSET#x}": "",
    "${SH:x}": None,
    "${SH^}": None,
    "${SH:#x}": None,
    "${ABC/b": None,
}

# A line, and the words that it has after expansion.
LINES = {
    "a b  c": ["a", "b", "c"],
    " a\tb ": ["a", "b"],
    "'a b' c": ["a b", "c"],
    'a"b c"d': ["ab cd"],
    "a\\ b c": ["a b", "c"],
    "$W": ["one", "two"],
    '"$W"': ["one two"],
    "x$W": ["xone", "two"],
    "$UNSET": [],
    "a ${UNSET:-b c} d": ["a", "b", "c", "d"],
    "<<E a": ["<<E", "a"],
}

# A line, and its words before expansion: quotes and escapes stay.
RAW = {
    "a=b c=d": ["a=b", "c=d"],
    "a='b c' d": ["a='b c'", "d"],
    'a="b c"': ['a="b c"'],
    "a=b\\ c d": ["a=b\\ c", "d"],
    'a="b\\"c d"': ['a="b\\"c d"'],
    "a='b\\' c": ["a='b\\'", "c"],
    "a\\": ["a"],
    "": [],
}


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_expanded(word):
    lex = ShellLex("\\", env=VARIABLES, skip_unset_env=False)
    if WORDS[word] is None:
        with pytest.raises(ValueError, match=r"\w"):
            lex.process_word(word)
    else:
        assert lex.process_word(word) == WORDS[word]


@pytest.mark.parametrize("line", LINES)
def test_a_line_is_expanded_and_split(line):
    assert ShellLex("\\", env=VARIABLES, skip_unset_env=False).process_words(line) == LINES[line]


@pytest.mark.parametrize("line", RAW)
def test_a_line_is_split_before_expansion(line):
    assert parse_words(line, "\\") == RAW[line]


def test_the_other_escape_letter():
    lex = ShellLex("`", env=VARIABLES, skip_unset_env=False)
    assert lex.process_word("a`$HOME\\$HOME``") == "a$HOME\\/root`"


def test_what_people_are_shown_keeps_quotes_and_unset_variables():
    lex = ShellLex("\\", raw_quotes=True, env=VARIABLES, skip_unset_env=True)
    assert lex.process_word("a '$SH' \"$SH\" $UNSET ${UNSET:-x}") == "a '$SH' \"bash\" $UNSET ${UNSET:-x}"


def test_heredoc_marks():
    marks = {
        "<<EOF": ("EOF", True, False),
        "<<-EOF": ("EOF", True, True),
        "<<'EOF'": ("EOF", False, False),
        '<<"E"F': ("EF", False, False),
        "3<<EOF": ("EOF", True, False),
    }
    for text, (name, expand, chomp) in marks.items():
        found = parse_heredoc(text)
        assert (found.name, found.expand, found.chomp) == (name, expand, chomp)
    for text in ("<EOF", "<<<EOF", "<<", "EOF<<x"):
        assert parse_heredoc(text) is None


DOCKERFILE = """\
# escape=\\
# a comment

FROM  debian:12   AS\tbuild
run apt-get update && \\
    # a comment within
    apt-get install \\
      -y x
RUN ["a", "b\\"c", "d e"]
RUN [ not json ]
ENV a=1 b="2 3" c=4\\ 5
ENV old style value
COPY --chown=a:b  --link x  "y z" /d/
COPY [ "a b", "/c" ]
LABEL "a b"=c
  EXPOSE 80   443/tcp
HEALTHCHECK  --interval=5s   CMD curl -f x
HEALTHCHECK NONE
CMD echo "# no comment" \\\\
USER me # not a comment
"""


def test_a_dockerfile_of_many_forms():
    found = parse_dockerfile_ast(DOCKERFILE)
    assert found.escape_token == "\\"
    assert [(each.name, each.flags, each.args, each.json) for each in found.instructions] == [
        ("FROM", [], ["debian:12", "AS", "build"], False),
        ("RUN", [], ["apt-get update &&     apt-get install       -y x"], False),
        ("RUN", [], ["a", 'b"c', "d e"], True),
        ("RUN", [], ["[ not json ]"], False),
        ("ENV", [], ["a", "1", "=", "b", '"2 3"', "=", "c", "4\\ 5", "="], False),
        ("ENV", [], ["old", "style value", ""], False),
        ("COPY", ["--chown=a:b", "--link"], ["x", '"y z"', "/d/"], False),
        ("COPY", [], ["a b", "/c"], True),
        ("LABEL", [], ['"a b"', "c", "="], False),
        ("EXPOSE", [], ["80", "443/tcp"], False),
        ("HEALTHCHECK", ["--interval=5s"], ["CMD", "curl -f x"], False),
        ("HEALTHCHECK", [], ["NONE"], False),
        ("CMD", [], ['echo "# no comment" \\\\'], False),
        ("USER", [], ["me # not a comment"], False),
    ]
    assert [(each.start_line, each.end_line) for each in found.instructions[:3]] == [(4, 4), (5, 8), (9, 9)]


def test_heredocs_end_at_their_names():
    text = "FROM a\nRUN <<A <<-'B' cat\nB\n $x\nA\n\tA\n\ttext\n\tB\nCOPY <<C /c\nA\nC\nUSER u\n"
    _, run, copy, user = parse_dockerfile_ast(text).instructions
    assert [doc.content for doc in run.heredocs] == ["B\n $x\n", "\tA\n\ttext\n"]
    assert [doc.content for doc in copy.heredocs] == ["A\n"]
    assert (run.start_line, run.end_line, user.start_line) == (2, 8, 12)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("FROM a\nFOO b\n", 2),
        ("FROM a\nRUN <<E\nx\n", 2),
        ("# escape=x\nFROM a\n", 1),
        ("FROM a\nENV x\n", 2),
        ('FROM a\nCMD ["a", ["b"]]\n', 2),
    ],
)
def test_what_is_refused_names_its_line(text, line):
    with pytest.raises(DockerfileSyntaxError) as caught:
        parse_dockerfile_ast(text)
    assert caught.value.line == line


def test_ignore_patterns():
    matches = {
        ("*", "a"): True,
        ("*.go", "a/b.go"): False,
        ("**/*.go", "a/b.go"): True,
        ("**/*.go", "b.go"): True,
        ("a/**", "a/b/c"): True,
        ("a", "a/b/c"): True,
        ("a/*/c", "a/b/c"): True,
        ("a/*/c", "a/b/x/c"): False,
        ("/a", "a"): True,
        ("a?c", "abc"): True,
        ("a[b-d]c", "acc"): True,
        ("a[^b-d]c", "acc"): False,
        ("a\\*c", "a*c"): True,
        ("a\\*c", "abc"): False,
    }
    assert {case: PatternMatcher([case[0]]).matches(case[1]) for case in matches} == matches
    taken_back = PatternMatcher(["a", "!a/keep", "a/keep/not"])
    assert [taken_back.matches(path) for path in ("a/x", "a/keep", "a/keep/y", "a/keep/not")] == [
        True,
        False,
        False,
        True,
    ]
