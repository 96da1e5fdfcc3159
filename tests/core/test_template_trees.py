"""Syntax trees of templates: the names that they read, their shapes, and that equal texts and shapes are handled once."""

import pytest
from jinja2 import TemplateAssertionError, meta, nodes

from router.core.rendering import TemplateEnvironment
from router.core.rendering.expressions import Expression, parse_expression
from router.core.rendering.syntax.checking import parse
from router.core.rendering.syntax.trees import names_read, nodes_below, shape_of
from router.core.rendering.templates import Compiled
from router.options import TemplateFile
from tests.support.rendering import event

SANDBOX = TemplateEnvironment().plain

TEXTS = [
    "nothing",
    "{{ payload.a }} {{ event.id }} {{ unknown }}",
    "{{ payload.a[user.name] | default(other, true) | join(', ') }}",
    "{{ range(3) }}{{ on('a', 'b') }}{{ payload.f(x, key=y, *z) }}",
    "{{ self }} {{ self.title }} {{ loop }} {{ caller }}",
    "{{ {'a': payload, b: [c, (d, e)]} }}{{ f ~ g ~ h }}{{ -i ** j }}",
    "{{ a if b else c }}{{ 1 if true else d }}",
    "{% if payload.a %}{{ b }}{% elif c %}{{ d }}{% else %}{{ e }}{% endif %}",
    "{{ a is divisibleby(b) }}{{ c < d <= e and f not in g }}{{ h[i:j:k] }}",
    "{% set a = b %}{{ a }}{{ c }}",
    "{% for a in b %}{{ a }}{{ loop.index }}{{ c }}{% else %}{{ d }}{% endfor %}{{ a }}",
    "{% macro m(a, b=c) %}{{ a }}{{ d }}{{ caller() }}{% endmacro %}{{ m(e) }}",
    "{% with a = b %}{{ a }}{% endwith %}{{ a }}",
    "{% filter upper %}{{ a }}{% endfilter %}",
    "{% block title %}{{ a }}{{ self.title() }}{% endblock %}",
    "{% call(a) payload.f(b) %}{{ a }}{{ c }}{% endcall %}",
]


@pytest.mark.parametrize("text", TEXTS)
def test_the_names_are_those_that_jinja_finds(text):
    tree = SANDBOX.parse(text)

    assert names_read(tree, nodes_below(tree)) == meta.find_undeclared_variables(SANDBOX.parse(text))


def test_a_template_that_can_not_be_compiled_is_an_error():
    tree = SANDBOX.parse("{% block a %}{% endblock %}{% block a %}{% endblock %}")

    with pytest.raises(TemplateAssertionError, match="defined twice"):
        names_read(tree, nodes_below(tree))


@pytest.mark.parametrize("text", TEXTS)
def test_the_nodes_are_those_that_jinja_finds_in_the_same_order(text):
    tree = SANDBOX.parse(text)

    assert [id(node) for node in nodes_below(tree)] == [id(node) for node in tree.find_all(nodes.Node)]


@pytest.mark.parametrize("text", TEXTS)
def test_the_copy_of_a_shape_shares_no_node_with_the_tree(text):
    tree = SANDBOX.parse(text)

    copy = shape_of(tree).tree

    assert not {id(node) for node in nodes_below(copy)} & {id(node) for node in nodes_below(tree)}
    assert tree == SANDBOX.parse(text)


ALIKE = [
    ("Tenant 1: {{ payload.a }}", "Tenant 2: {{ payload.a }}"),
    ("{% if payload.a == 1 %}x{% endif %}", "{% if payload.a == 'one' %}y{% endif %}"),
    ("{{ payload.a > 5 }}", "{{ payload.a > true }}"),
]
UNLIKE = [
    ("{{ payload.a }}", "{{ payload.b }}"),
    ("{{ payload.a == 1 }}", "{{ payload.a != 1 }}"),
    ("{{ payload.a | default('x') }}", "{{ payload.a | default('y') }}"),
    ("{{ payload.a + 1 }}", "{{ payload.a + 1.0 }}"),
    ("{{ f(1) }}", "{{ f(true) }}"),
    ("{{ f([a], b) }}", "{{ f([a, b]) }}"),
    ("a{{ b }}", "{{ b }}a"),
    ("{{ payload.a == 'x' }}", "{{ payload.a == payload.x }}"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_trees_that_differ_in_texts_and_compared_constants_have_one_key(one, other):
    assert shape_of(SANDBOX.parse(one)).key == shape_of(SANDBOX.parse(other)).key


@pytest.mark.parametrize(("one", "other"), UNLIKE)
def test_other_trees_have_keys_of_their_own(one, other):
    assert shape_of(SANDBOX.parse(one)).key != shape_of(SANDBOX.parse(other)).key


@pytest.mark.parametrize("name", ["plain", "html", "urls"])
def test_templates_of_one_shape_share_their_code_and_keep_their_own_values(name):
    sandbox = getattr(TemplateEnvironment(), name)
    texts = [
        "<a{# c #}>\n{{ payload.x > 1 }}{% set b %}<b>{% endset %}{{ b }}",
        "&{# c #}x{{ payload.x > 2 }}{% set b %}c{% endset %}{{ b }}",
    ]

    rendered = [Compiled(text, sandbox).render({"payload": {"x": 2}}) for text in texts]

    assert len(sandbox.codes) == 1
    assert rendered == ["<a>\ntrue<b>", "&xfalsec"]


def test_expressions_of_one_shape_share_their_code_and_keep_their_own_constants():
    environment = TemplateEnvironment()
    values = ["1", "1.0", "true", "'1'", "null", "none"]
    expressions = [Expression(f"payload.x == {value}", environment) for value in values]

    held = [[expression.holds(event({"x": x}), 0.0) for expression in expressions] for x in (1, True, "1", None)]

    assert len(environment.expressions.codes) == 1
    assert held == [
        [True, True, False, False, False, False],
        [False, False, True, False, False, False],
        [False, False, False, True, False, False],
        [False, False, False, False, True, True],
    ]


def test_compiling_leaves_the_parsed_tree_as_it_is():
    environment = TemplateEnvironment()
    text = "{% for x in payload.all[1:] %}{{ 1 + 2 }}{{ '%s' % x }}{% endfor %}{% filter upper %}a{% endfilter %}"

    Compiled(text, environment.plain)

    assert parse(text, environment.plain).tree == SANDBOX.parse(text)


def test_equal_texts_of_an_environment_are_parsed_once():
    environment = TemplateEnvironment()
    Compiled("{{ payload.a }}", environment.plain)
    Expression("payload.a == null", environment)

    parsed = parse("{{ payload.a }}", environment.plain)
    expression = parse_expression("payload.a == null", environment)

    assert parse("{{ payload.a }}", environment.with_lookups.html) is parsed
    assert parse_expression("payload.a == null", environment.with_lookups) is expression
    environment.forget_trees()
    assert parse("{{ payload.a }}", environment.plain) is not parsed


def test_the_faults_of_a_text_are_reported_as_often_as_it_is_compiled():
    environment = TemplateEnvironment()

    messages = []
    for _ in range(2):
        with pytest.raises(Exception, match="no `unknown`") as raised:
            Compiled("{{ unknown }} {{ x | nofilter }}", environment.plain)
        messages.append(str(raised.value))

    assert messages[0] == messages[1]


def test_equal_texts_from_files_are_parsed_each_time():
    text = TemplateFile("{% include 'a' %}", name="mail.txt", read=lambda _: "A")
    environment = TemplateEnvironment()

    assert parse(text, environment.plain) is not parse(text, environment.plain)


@pytest.mark.parametrize("first", ["plain", "html", "urls"])
def test_each_environment_escapes_a_text_that_several_share(first):
    """The tree is parsed by the environment that asks first, and compiled by each of them."""
    environment, text = TemplateEnvironment(), "{{ payload.x }}{{ '<k>' }}"
    Compiled(text, getattr(environment, first))
    found = {name: Compiled(text, getattr(environment, name)).render({"payload": {"x": "&"}}) for name in ESCAPED}
    assert found == ESCAPED


ESCAPED = {"plain": "&<k>", "html": "&amp;&lt;k&gt;", "urls": "%26%3Ck%3E"}
