from pixcli.cli.main import main
from pixcli.options import all_fields
from pixcli.options.ini import read_ini
from pixcli.options.presets import read_preset


def test_writes_every_option_with_its_default(tmp_path):
    path = tmp_path / "project.ini"
    assert main(["project_generator", "--output_path", str(path)]) == 0
    assert read_ini(path) == {
        key: field.default for key, field in all_fields().items() if field.default != ""
    }
    text = path.read_text(encoding="utf-8")
    assert all(f"{field.name}=" in text and field.help in text for field in all_fields().values())


def test_a_preset_goes_into_the_file_and_the_path_of_the_file_does_not(tmp_path):
    path = tmp_path / "project.ini"
    assert main(["project_generator", "--output_path", str(path), "--preset", "pixsfm"]) == 0
    values = read_ini(path)
    assert values.items() >= read_preset("pixsfm").items()
    assert "output_path" not in values


def test_a_file_made_from_a_file_keeps_its_values(tmp_path):
    first, second = tmp_path / "first.ini", tmp_path / "second.ini"
    first.write_text("image_path=images\n[KeypointAdjustment]\nbound=2\n", encoding="utf-8")
    assert main(["project_generator", "--output_path", str(second), "--project_path", str(first)]) == 0
    assert read_ini(second).items() >= {"image_path": "images", "KeypointAdjustment.bound": 2.0}.items()
