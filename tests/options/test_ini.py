import pytest

from pixcli.errors import UserError
from pixcli.options import all_fields
from pixcli.options.ini import read_ini, write_ini


def _write(tmp_path, text):
    path = tmp_path / "project.ini"
    path.write_text(text, encoding="utf-8")
    return path


def test_keys_without_a_group_come_first_then_sections(tmp_path):
    path = _write(
        tmp_path,
        "# comment\n; comment\n\ndatabase_path = my db.db\nimage_path=\nlog_level=1\n"
        "[KeypointAdjustment]\nbound=3\nreverify=false\nstrategy=featuremetric\n",
    )
    assert read_ini(path) == {
        "database_path": "my db.db",
        "log_level": 1,
        "KeypointAdjustment.bound": 3.0,
        "KeypointAdjustment.reverify": False,
        "KeypointAdjustment.strategy": "featuremetric",
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[KeypointAdjustment]\nboud=3\n",
            "line 2: unknown option KeypointAdjustment.boud. Did you mean KeypointAdjustment.bound?",
        ),
        ("[KeypointAdjustment]\nBound=3\n", "Did you mean KeypointAdjustment.bound?"),
        ("databse_path=x\n", "line 1: unknown option databse_path. Did you mean database_path?"),
        (
            "\n[KeypointAdjust]\n",
            "line 2: unknown section [KeypointAdjust]. Did you mean KeypointAdjustment?",
        ),
        ("[KeypointAdjustment\n", "line 1: expected a section"),
        ("[KeypointAdjustment]\nbound\n", "line 2: expected 'name=value', found 'bound'"),
        ("[KeypointAdjustment]\nbound=-3\n", "KeypointAdjustment.bound is '-3.0', but takes a number"),
        (
            "[KeypointAdjustment]\nbound=3\n\nbound=4\n",
            "line 4: KeypointAdjustment.bound is set already in line 2",
        ),
        ("[PatchMatchStereo]\n", "unknown section [PatchMatchStereo]"),
    ],
)
def test_a_mistake_names_file_line_and_remedy(tmp_path, text, message):
    path = _write(tmp_path, text)
    with pytest.raises(UserError) as error:
        read_ini(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_no_ini(tmp_path):
    with pytest.raises(UserError, match="cannot read the options: No such file"):
        read_ini(tmp_path / "missing.ini")
    with pytest.raises(UserError, match="cannot read the options"):
        read_ini(tmp_path)
    (tmp_path / "binary.ini").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a text file"):
        read_ini(tmp_path / "binary.ini")
    with pytest.raises(UserError, match="cannot write the options"):
        write_ini(tmp_path / "no" / "such" / "folder.ini", {})


def test_what_is_written_is_read_back_with_every_option(tmp_path):
    given = {"database_path": "a.db", "KeypointAdjustment.bound": 2.5, "Interpolation.ncc_normalize": True}
    write_ini(tmp_path / "project.ini", given)
    expected = {key: given.get(key, field.default) for key, field in all_fields().items()}
    without_empty_texts = {key: value for key, value in expected.items() if value != ""}
    assert read_ini(tmp_path / "project.ini") == without_empty_texts
