"""The quick look at configuration files finds what the models find."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import places
from cli.places import Options
from config import loading, models
from oci.errors import BadInput

FILES = {
    "nothing": {},
    "empty": {"config.toml": ""},
    "directories": {"config.toml": 'state_dir = "/s"\nrun_dir = "/r"\n'},
    "socket": {"config.toml": 'admin_socket = "/a/b.sock"\nrun_dir = "/r"\n'},
    "drop-ins in order": {
        "config.toml": 'run_dir = "/r"\n',
        "conf.d/20.toml": 'run_dir = "/second"\n',
        "conf.d/10.toml": 'run_dir = "/first"\nstate_dir = "/s"\n',
        "conf.d/.hidden.toml": 'run_dir = "/hidden"\n',
        "conf.d/other.txt": "run_dir",
    },
    "drop-in alone": {"conf.d/10.toml": 'admin_socket = "/only.sock"\n'},
    "other keys": {"config.toml": '[log]\nlevel = "debug"\n[network]\nbuiltin = true\n'},
    "not normal": {"config.toml": 'run_dir = "/r//x/./y"\nstate_dir = "/s/"\n'},
}


def write(directory: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    return directory / "config.toml"


@pytest.mark.parametrize("files", FILES.values(), ids=FILES)
def test_the_places_are_those_of_the_models(
    tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main = write(tmp_path, files)
    monkeypatch.setattr(places, "MAIN_FILE", main)
    settings = loading.load(main).settings
    found = places.find(Options())
    assert (found.admin_socket, found.state_dir) == (settings.admin_socket, settings.state_dir)
    assert found.run_logs == settings.state_dir / "logs"


def test_the_defaults_are_those_of_the_models() -> None:
    settings = models.Settings()
    assert (loading.MAIN_FILE, settings.state_dir, settings.run_dir) == (
        places.MAIN_FILE,
        places.STATE_DIR,
        places.RUN_DIR,
    )


def test_what_is_typed_wins_the_more_exact_the_more(tmp_path: Path) -> None:
    main = write(tmp_path, {"config.toml": 'run_dir = "/r"\n'})
    chosen = [
        places.find(Options(config=str(main))),
        places.find(Options(config=str(main), run_dir="/other")),
        places.find(Options(config=str(main), run_dir="/other", socket="/exact.sock")),
    ]
    assert [(str(each.admin_socket), each.chosen) for each in chosen] == [
        ("/r/admin.sock", str(main)),
        ("/other/admin.sock", "--run-dir"),
        ("/exact.sock", "--socket"),
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('run_dir = "relative"\n', r"config.toml:1: run_dir: "),
        ("run_dir = 5\n", r"config.toml:1: run_dir: a path is text"),
        ("run_dir = \n", r"config.toml:1: is not TOML"),
        ("\xff", "config.toml:1: "),
    ],
)
def test_an_odd_file_is_refused_in_the_words_of_the_models(tmp_path: Path, text: str, complaint: str) -> None:
    main = write(tmp_path, {"config.toml": text})
    with pytest.raises(BadInput, match=complaint):
        places.find(Options(config=str(main)))


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="No such file"):
        places.find(Options(config=str(tmp_path / "none.toml")))
