"""Settings: which origin wins, and what is said when one is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyeloop.runtime.budget import Limits
from keyeloop.runtime.config import Config, load_config
from keyeloop.runtime.errors import ConfigError


def toml(folder: Path, text: str) -> Path:
    path = folder / "keyeloop.toml"
    path.write_text(text)
    return path


def test_argument_over_environment_over_file(tmp_path: Path) -> None:
    file = toml(tmp_path, 'model = "from-file"\nturns = 1\nseconds = 2.5\ndocuments = "notes"\n')
    config = load_config(
        {"turns": 3, "seed": None}, environment={"KEYELOOP_TURNS": "2", "KEYELOOP_SECONDS": "9"}, file=file
    )
    assert (config.model, config.turns, config.seconds) == ("from-file", 3, 9.0)
    assert config.documents == Path("notes")
    assert config.limits == Limits(turns=3, seconds=9.0)


def test_defaults_need_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config(environment={"HOME": "/"}) == Config()
    toml(tmp_path, "turns = 7")
    assert load_config(environment={}).turns == 7


@pytest.mark.parametrize("word", ["", "none", "None"])
def test_the_environment_can_lift_a_limit(word: str) -> None:
    assert load_config(environment={"KEYELOOP_TURNS": word}).turns is None


def test_an_unknown_name_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown setting KEYELOOP_TURN from the environment.*KEYELOOP_TURNS\?"):
        load_config(environment={"KEYELOOP_TURN": "3"})
    with pytest.raises(ConfigError, match=r"unknown setting modle from .*keyeloop.toml: did you mean model\?"):
        load_config(environment={}, file=toml(tmp_path, 'modle = "x"'))
    with pytest.raises(ConfigError, match=r"unknown setting max_turns from .*: did you mean turns\?"):
        load_config(environment={}, file=toml(tmp_path, "max_turns = 3"))
    with pytest.raises(ConfigError, match=r"unknown setting KEYELOOP_MAX_CALLS .*: did you mean KEYELOOP_TOOL_CALLS\?"):
        load_config(environment={"KEYELOOP_MAX_CALLS": "3"})
    with pytest.raises(ConfigError, match=r"unknown setting qqqq from an argument: known are model, runs"):
        load_config({"qqqq": 1}, environment={})


def test_a_table_is_told_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown table \[limits\] in .*keyeloop.toml: settings stand at its top"):
        load_config(environment={}, file=toml(tmp_path, "[limits]\nturns = 3\n"))


@pytest.mark.parametrize("value", ["many", "0", "-3", "2.5"])
def test_a_value_that_does_not_fit_names_its_origin(value: str) -> None:
    with pytest.raises(ConfigError, match=f"setting KEYELOOP_TURNS from the environment is '{value}'"):
        load_config(environment={"KEYELOOP_TURNS": value})


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such settings file"):
        load_config(environment={}, file=tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_config(environment={}, file=toml(tmp_path, "turns ="))
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(environment={}, file=tmp_path)
