"""The registry as the page shows it."""

from pathlib import Path

from waiting import until

from deploy.dashboard.views.registry import RegistryView


def test_it_is_loading_until_it_has_answered_and_no_folder_of_the_server_is_shown(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 1000)
    view = RegistryView(f"sqlite:///{tmp_path}/mlflow.db", None)
    assert view.facts == {"state": "loading", "uri": "sqlite:///mlflow.db", "name": None, "error": None}
    view.refresh(None)
    assert view.state == "loading", "no name is known"
    view.refresh("tides")
    until(lambda: view.state != "loading")
    assert (view.state, view.facts["name"]) == ("error", "tides")
    assert "mlflow.db" in view.facts["error"]
    assert str(tmp_path) not in str(view.facts)


def test_a_local_one_that_does_not_exist_is_none(tmp_path: Path) -> None:
    view = RegistryView(f"sqlite:///{tmp_path}/mlflow.db", "tides")
    assert view.facts["state"] == "none"
    assert view.facts["uri"] is None
