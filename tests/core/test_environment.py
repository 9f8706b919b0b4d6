"""The description of the machine."""

from ipucnn.core import environment


def test_names_of_cards_are_those_of_their_driver(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "_NVIDIA", tmp_path)
    assert environment.nvidia_cards() == []
    for place, name in (("0000:3b:00.0", "NVIDIA H200"), ("0000:5e:00.0", "NVIDIA A100")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "information").write_text(
            f"Model: \t\t {name}\nIRQ:   \t\t 201\nGPU UUID: \t GPU-1\n")
    (tmp_path / "none").mkdir()
    assert environment.nvidia_cards() == ["NVIDIA A100", "NVIDIA H200"]


def test_the_command_has_no_credentials(monkeypatch):
    monkeypatch.setattr("sys.argv", [
        "ipucnn", "run", "--data-dir=https://me:pass@host/x?token=a", "--weights", "s3://b/w.pt"])
    assert environment.describe()["command"] == [
        "ipucnn", "run", "--data-dir=https://host/x", "--weights", "s3://b/w.pt"]
