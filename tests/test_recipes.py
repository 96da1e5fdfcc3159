"""Every recipe is a configuration that works, whose tests hold and notice every change of its routes."""

import json

import pytest

from tests.support.process import ROOT, run

RECIPES = sorted((ROOT / "docs" / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_holds(recipe, tmp_path):
    done = run("test", recipe, "--mutate", "--coverage", "--json", cwd=tmp_path)
    [report] = json.loads(done.out)
    assert (done.code, done.err) == (0, ""), report
    assert report["missed"] == 0
    assert report["passed"] >= 4
    assert report["mutants"]["tried"] >= 4
    assert report["mutants"]["survived"] == []
    assert report["coverage"]["percent"] == 100.0
    checked = run("check", "--strict", recipe, cwd=tmp_path)
    assert checked.code == 0, checked.out
    assert "gets the event twice" not in checked.out


def test_the_page_names_each_of_them():
    page = (ROOT / "docs" / "recipes" / "README.md").read_text()
    assert [path.name for path in RECIPES if f"({path.name})" not in page] == []
    assert len(RECIPES) == 10
