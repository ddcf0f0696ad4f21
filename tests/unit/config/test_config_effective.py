from __future__ import annotations

import json
import tomllib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from config.effective import Row, explain, plain, toml_value
from config.loading import LoadedSettings, load
from config.models import Settings
from config.problems import known_keys
from config.units import Bytes, Seconds


def test_every_value_in_force_is_told_with_its_origin(tmp_path: Path) -> None:
    main = tmp_path / "config.toml"
    main.write_text(
        'run_dir = "/run/x"\n[images]\nmax_image_size = "1536MiB"\n[handlers."a.b"]\noptions = ["-v"]\n'
    )
    drop_in = tmp_path / "conf.d" / "1.toml"
    drop_in.parent.mkdir()
    drop_in.write_text('\n[network]\nadd_timeout = "90000ms"\nbuiltin = true\n')
    rows = {row.key: row for row in explain(load(main))}
    expected = [
        Row(key="run_dir", value='"/run/x"', origin=f"{main}:1"),
        Row(key="listen", value='["/run/x/crisp.sock"]', origin="default"),
        Row(key="default_handler", value="unset", origin="default"),
        Row(key='handlers."a.b".options', value='["-v"]', origin=f"{main}:5"),
        Row(key='handlers."a.b".binary', value="unset", origin="default"),
        Row(key="images.max_image_size", value='"1536MiB"', origin=f"{main}:3"),
        Row(key="network.add_timeout", value='"1m30s"', origin=f"{drop_in}:3"),
        Row(key="network.builtin", value="true", origin=f"{drop_in}:4"),
        Row(key="network.max_confs", value="1", origin="default"),
        Row(key="containers.default_ulimits.nofile.soft", value="1024", origin="default"),
    ]
    assert [rows[row.key] for row in expected] == expected


def test_every_known_key_is_told() -> None:
    told = {row.key for row in explain(LoadedSettings())}
    plain_keys = {key for key in known_keys() if "NAME" not in key}
    assert told == plain_keys | {
        "handlers",
        "containers.default_ulimits.nofile.soft",
        "containers.default_ulimits.nofile.hard",
    }


def test_the_plain_form_is_json_in_the_notation_of_the_files() -> None:
    shown = json.loads(json.dumps(plain(LoadedSettings())))
    assert shown["state_dir"] == "/var/lib/crisp"
    assert shown["network"]["cache_dir"] is None
    assert shown["network"]["add_timeout"] == "1m30s"
    assert shown["containers"]["shm_size"] == "64MiB"
    assert shown["containers"]["default_ulimits"] == {"nofile": {"soft": 1024, "hard": 524288}}
    assert set(shown) == set(Settings.model_fields)


def test_values_are_written_as_toml() -> None:
    assert [
        toml_value(value)
        for value in (
            None, True, 3, "a\"b\\c\n", ("x",), Path("/p"), Seconds(0.5), Bytes(1024), {"a b": {"c": 1}}, {},
        )
    ] == [
        "unset", "true", "3", r'"a\"b\\c\n"', '["x"]', '"/p"', '"500ms"', '"1KiB"',
        '{ "a b" = { c = 1 } }', "{}",
    ]  # fmt: skip


@given(st.dictionaries(st.text(), st.text() | st.booleans() | st.lists(st.text() | st.integers(-9, 9))))
def test_what_is_written_can_be_read_again(value: dict[str, object]) -> None:
    assert tomllib.loads(f"x = {toml_value(value)}") == {"x": value}
