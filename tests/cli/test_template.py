"""Templates. What is expected here is what docker 28 printed for the same template and data."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerstore.cli.template import NIL_LIST, NIL_MAP, OpenMap, Template, TemplateError, as_json

DATA: dict[str, object] = {
    "Name": "/web",
    "Path": "/bin/sh",
    "Args": [],
    "State": {"Status": "created", "Running": False, "Paused": False, "Pid": 0},
    "Config": {
        "Cmd": ["/bin/sh"],
        "Env": NIL_LIST,
        "Volumes": NIL_MAP,
        "Labels": OpenMap({"a.b": "c", "io.buildah.version": "1.28.2", "x": "y"}),
    },
    "RepoTags": ["foo/bar:baz", "lab/small:latest"],
    "Size": 116668057,
    "Label": lambda name: f"<{name}>",
}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("plain", "plain"),
        ("{{.Name}} {{.State.Pid}} {{.Size}}", "/web 0 116668057"),
        ("{{.Config.Cmd}} {{.Args}} {{.Config.Env}} {{.Config.Volumes}}", "[/bin/sh] [] [] map[]"),
        ("{{.Config.Labels}}", "map[a.b:c io.buildah.version:1.28.2 x:y]"),
        ("{{.Config.Labels.x}} {{.Config.Labels.nope}}", "y <no value>"),
        ('{{index .Config.Labels "a.b"}} [{{index .Config.Labels "zz"}}]', "c []"),
        ("{{index .RepoTags 0}} {{len .RepoTags}}", "foo/bar:baz 2"),
        ("{{with .State}}{{.Status}}{{end}}{{with .Args}}a{{else}}b{{end}}", "createdb"),
        ("{{with $x := .Name}}{{$x}}{{end}}", "/web"),
        ("{{with .State}}{{$.Path}}{{end}}", "/bin/sh"),
        ("{{if and .Name (not .State.Running)}}x{{end}}{{if or .State.Running .Name}}y{{end}}", "xy"),
        ('{{if .State.Running}}a{{else if eq .State.Status "created"}}b{{else}}c{{end}}', "b"),
        (
            '{{eq 1 1}} {{eq "a" "b" "a"}} {{ne 1 2}} {{lt 1 2}} {{le 2 2}} {{gt "b" "a"}} {{ge 1 2}}',
            "true " * 6 + "false",
        ),
        ('{{and 1 0 2}} {{or 0 "" "z"}} {{not 0}}', "0 z true"),
        ('{{len "héllo"}} {{slice "abcdef" 1 3}} {{slice .Config.Cmd 0 1}}', "6 bc [/bin/sh]"),
        ("{{range .Config.Cmd}}[{{.}}]{{else}}none{{end}} {{range .Args}}[{{.}}]{{else}}none{{end}}", "[/bin/sh] none"),
        ("{{range .Config.Env}}x{{else}}none{{end}}{{len .Config.Env}}{{if .Config.Env}}t{{else}}f{{end}}", "none0f"),
        ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}", "a.b=c;io.buildah.version=1.28.2;x=y;"),
        ("{{range $i, $v := .RepoTags}}{{if $i}},{{end}}{{$v}}{{end}}", "foo/bar:baz,lab/small:latest"),
        ("{{range $v := .RepoTags}}{{$v}} {{end}}", "foo/bar:baz lab/small:latest "),
        ('{{range $i, $e := split "a,b,c" ","}}{{if eq $i 1}}{{continue}}{{end}}{{$e}}{{end}}', "ac"),
        ('{{range split "a,b,c" ","}}{{if eq . "b"}}{{break}}{{end}}{{.}}{{end}}', "a"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        ("{{$n := 0}}{{range .Config.Cmd}}{{$n = 1}}{{end}}{{$n}}", "1"),
        ("{{$x := .Name}}{{$x}} {{$.Name}}", "/web /web"),
        ('a {{- " b " -}} c', "a b c"),
        ("{{/* comment */}}x{{- /* c */ -}} y", "xy"),
        (r'{{"a\tb\u00e9"}} {{`raw\n`}} {{1.50}} {{0x1F}} {{1e3}} {{true}}', "a\tb\u00e9 raw\\n 1.5 31 1000 true"),
        ("{{'a'}}", "97"),
        ('{{"a" | printf "%s-%s" "b"}} {{.Name | upper}} {{.Name | printf "%-8s|"}}', "b-a /WEB /web    |"),
        ('{{print 1 2 "a" "b" 3}} {{println "a" 1}}', "1 2ab3 a 1\n"),
        (r"""{{html "<a&'\">"}} {{js "it's <b>"}}""", r"&lt;a&amp;&#39;&#34;&gt; it\'s \u003Cb\u003E"),
        ('{{urlquery "a b&c/d"}}', "a+b%26c%2Fd"),
        ("{{json .Config.Labels}}", '{"a.b":"c","io.buildah.version":"1.28.2","x":"y"}'),
        ('{{json .Config.Cmd}} {{json .Name}} {{json "<é>"}} {{json .Config.Env}}', '["/bin/sh"] "/web" "<é>" null'),
        ('{{split "a,b,c" ","}} {{join (split "a,b" ",") "+"}}', "[a b c] a+b"),
        ('{{title "hello world"}} {{lower "ABC"}} {{pad "x" 1 2}}| {{truncate "a" 9}}', "Hello World abc  x  | a"),
        ('{{(index .Config.Cmd 0)}} {{len (split "a.b" ".")}}', "/bin/sh 2"),
        (
            '{{printf "%q %v %s %d %05d %x %t %5.1f %-5s| %5s|%%" .Name .Args .Path 5 42 255 true 1.25 "ab" "cd"}}',
            '"/web" [] /bin/sh 5 00042 ff true   1.2 ab   |    cd|%',
        ),
        ('{{printf "%6.2f|%e|%g" 3.14159 1.5 2.5}}', "  3.14|1.500000e+00|2.5"),
        ('{{printf "%c %o %b %X" 65 8 5 255}}', "A 10 101 FF"),
        (
            '{{printf "%*d" 5 1}} {{printf "%+d" 1}} {{printf "%10v|%-10v|" true "x"}}',
            "    1 +1       true|x         |",
        ),
        ('{{printf "%.2s" "abc"}} {{printf "%x" "hi"}}', "ab 6869"),
        ('{{index "abc" 1}}', "98"),
        ("{{eq nil nil}}", "true"),
        ('{{.Label "x"}} {{"y" | .Label}} {{(.Label "z") | len}}', "<x> <y> 3"),
    ],
)
def test_template_prints_what_docker_prints(template: str, expected: str) -> None:
    assert Template(template).render(DATA) == expected


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{.Nam", "unclosed action"),
        ("{{nofunc 1}}", "function nofunc is not defined; there are: "),
        ("{{.Name | nofunc}}", "function nofunc is not defined"),
        ("{{if}}x{{end}}", "missing value for if"),
        ("{{}}", "missing value for command"),
        ("{{if 1}}x", "{{if}} has no {{end}}"),
        ("{{range .X}}x", "{{range}} has no {{end}}"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{else}}", "unexpected {{else}}"),
        ("{{if 1}}{{else}}{{else}}{{end}}", "second {{else}}"),
        ("{{if 1}}x{{end 3}}", "unexpected 3 after end"),
        ('{{"abc}}', "unterminated quoted string"),
        ("{{.}", "unexpected '}'"),
        ("{{$y}}", "undefined variable $y"),
        ("{{$y = 1}}", "undefined variable $y"),
        ("{{if $y := 1}}{{end}}{{$y}}", "undefined variable $y"),
        ("{{range $y := .X}}{{end}}{{$y}}", "undefined variable $y"),
        ("{{$a, $b := .X}}", "for range only"),
        ("{{1 | 2}}", "only a function can follow |"),
        ("{{1 2}}", "a literal is no function"),
        ("{{nil}}", "a literal is no function"),
        ("{{(.X}}", "unclosed left parenthesis"),
        ("{{break}}", "outside of {{range}}"),
        ('{{define "T"}}{{end}}', "{{define}} is not supported"),
        (r'{{"\z"}}', "unknown escape"),
        ("{{'ab'}}", "not one character"),
        ("{{json.X}}", "json has no fields"),
        ("{{.X)}}", "unexpected )"),
    ],
)
def test_what_is_no_template_is_refused_before_any_data(template: str, words: str) -> None:
    with pytest.raises(TemplateError) as caught:
        Template(template)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{{.Nope}}", ".Nope: can't evaluate field Nope; there are: Args, Config, "),
        ("{{.Config.Nope.X}}", ".Config.Nope.X: can't evaluate field Nope; there are: Cmd, Env, "),
        ("{{.Name.Foo}}", "can't evaluate field Foo in type string"),
        ("{{.RepoTags.Foo}}", "can't evaluate field Foo in type []string"),
        ("{{.Config.Env.Foo}}", "can't evaluate field Foo in type []string"),
        ("{{.Config.Labels.nope.x}}", "nope has no value"),
        ('{{.Name "arg"}}', ".Name is no function"),
        ("{{.Label}}", ".Label: wrong number of arguments: 0"),
        ("{{lower}}", "lower: wrong number of arguments: 0"),
        ("{{and}}", "and: wants at least one value"),
        ('{{eq 1 "a"}}', "cannot compare a whole number with a string"),
        ("{{eq .Config.Cmd .Config.Cmd}}", "cannot compare [/bin/sh]"),
        ('{{lt 1 "a"}}', "cannot compare a whole number with a string"),
        ("{{lt true false}}", "have no order"),
        ("{{eq 1}}", "at least two values"),
        ("{{index .Config.Cmd 7}}", "out of range: 7, there are 1"),
        ("{{index .Config.Env 0}}", "out of range: 0, there are 0"),
        ('{{index .Config "Nope"}}', "index: can't evaluate field Nope"),
        ("{{index 5 0}}", "5 has no elements"),
        ("{{index .Config.Cmd true}}", "true is not a whole number"),
        ("{{slice .Config.Cmd 1 9}}", "out of range: 1 to 9"),
        ("{{len 5}}", "len: 5 has no length"),
        ("{{range 5.5}}{{end}}", "cannot go over 5.5"),
        ('{{range "abc"}}{{end}}', "cannot go over abc"),
        ('{{printf "%d" "a"}}', "%d does not fit a"),
        ('{{printf "%s" 1}}', "%s does not fit 1"),
        ('{{printf "%s"}}', "no value for %s"),
        ('{{printf "a" 1}}', "more values than verbs"),
        ('{{join .Name ","}}', "/web is not a list"),
        ("{{upper 1}}", "upper: 1 is not a string"),
    ],
)
def test_what_the_data_lack_is_named(template: str, words: str) -> None:
    parsed = Template(template)
    with pytest.raises(TemplateError) as caught:
        parsed.render(DATA)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_headings_pass_through_the_functions_that_shape_a_value() -> None:
    template = Template(
        '{{json .A}}\t{{upper .B}}\t{{truncate .A 1}}\t{{if eq .A "x"}}-{{end}}{{.Label "io.x.build-date"}}'
    )
    headings = {"A": "ALPHA", "B": "Beta", "Label": lambda name: name.upper()}
    assert template.render_headings(headings) == "ALPHA\tBeta\tALPHA\tIO.X.BUILD-DATE"


def test_json_is_valid_even_for_names_that_are_not_text() -> None:
    name = b"/caf\xe9".decode(errors="surrogateescape")
    assert as_json({"Path": name}) == '{"Path":"/caf\\udce9"}'


def test_json_leaves_methods_out_and_shows_nil_as_null() -> None:
    assert as_json({"a": NIL_LIST, "b": [NIL_MAP], "f": len}) == '{"a":null,"b":[null]}'


@given(st.text())
def test_any_text_is_a_template_or_a_template_error(text: str) -> None:
    try:
        Template(text).render({})
    except TemplateError:
        pass


_MARKS = ["{{", "}}", "-", " ", ".", ".A", ".B", "$", "$x", ":=", "=", "|", "(", ")", ",", "`", "'", "/*", "*/"]
_WORDS = [
    "if",
    "else",
    "end",
    "range",
    "with",
    "break",
    "continue",
    "len",
    "eq",
    "and",
    "index",
    "printf",
    "nil",
    "true",
]
_PIECES = st.sampled_from([*_MARKS, *_WORDS, '"%d"', "1", "-1", "1.5"])


@given(st.lists(_PIECES).map(" ".join) | st.lists(_PIECES).map("".join))
def test_any_mix_of_template_words_is_a_template_or_a_template_error(text: str) -> None:
    data = {"A": [1, "b", None, {"A": 1}], "B": OpenMap()}
    try:
        Template("{{" + text + "}}").render(data)
    except TemplateError:
        pass
