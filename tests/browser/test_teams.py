"""MLflow's pages where all is on at once: users, roles, an account, workspaces, a judge by schedule."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import requests
from playwright.sync_api import Browser, Locator, Page, Response, expect

from tests.client.team_servers import ENDPOINT, Member, TeamServer, Work, logged, team_server
from tests.mongod import Mongod
from tools.browser import open_window

# The server and its jobs are many processes that import MLflow.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
JUDGE = "mlflow.experiment-scorers"
HOME = "mlflow.home"
NEXT = "the canary of the next day"
CURRENT_USER = "/api/2.0/mlflow/users/current"


@pytest.fixture
def team(
    chromium_path: str, mongod: Mongod, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TeamServer]:
    with team_server(mongod, tmp_path_factory.mktemp("teams")) as running:
        yield running


def test_the_pages_of_teams(team: TeamServer, browser: Browser) -> None:
    team.workspace("team-a")
    ann = team.user("ann", "team-a")
    night = team.user(team.jobs_user, "team-a", role=None)
    team.may_call(night, team.endpoint("team-a"))
    work = logged(ann)
    with looked_at(browser, ann) as desk:
        a_judge_is_made_that_runs_by_schedule(desk, work)
    with looked_at(browser, team.admin) as desk:
        a_workspace_is_made_and_described(desk)
        users_are_made_and_deleted(desk)
        a_role_is_made_and_given(desk)
        a_workspace_shows_its_own_runs(desk)
    dora = Member(team, "dora", "team-b")
    assert dora.ask("GET", CURRENT_USER)["user"]["is_admin"]
    with looked_at(browser, dora) as desk:
        a_password_is_changed(desk)
    assert dora.answer("GET", CURRENT_USER).status_code == 401
    assert requests.get(team.server.address + CURRENT_USER, auth=("dora", NEXT), timeout=60).ok
    with looked_at(browser, ann) as desk:
        team.until(lambda: ann.verdicts(work.bombs, "relevant"))
        what_the_judge_said_is_shown(desk, work)


class Desk:
    """A member's window."""

    def __init__(self, page: Page, member: Member) -> None:
        self.page = page
        self.member = member

    def go(self, path: str, workspace: str | None = None) -> None:
        joint = "&" if "?" in path else "?"
        named = "" if workspace is None else f"{joint}workspace={workspace}"
        self.page.goto("about:blank")
        self.page.goto(f"{self.member.team.server.address}/#{path}{named}", wait_until="domcontentloaded")

    def part(self, name: str) -> Locator:
        """A part of a page by the name that MLflow's telemetry has for it."""
        return self.page.locator(f"[data-component-id='{name}']:visible")

    def choose(self, option: str) -> None:
        self.page.get_by_role("option").filter(has_text=option).first.click()

    def confirm(self, button: str) -> None:
        self.page.get_by_role("dialog").get_by_role("button", name=button, exact=True).click()
        expect(self.page.get_by_role("dialog")).to_have_count(0)


@contextmanager
def looked_at(browser: Browser, member: Member) -> Iterator[Desk]:
    """No call of a page may be refused, and no page may fail."""
    window = open_window(browser, member.team.server.address, login=(member.name, member.password))
    refused: list[str] = []

    def note(response: Response) -> None:
        if response.status >= 400 and not is_of_the_interface(response):
            refused.append(f"{response.status} {response.request.method} {response.url}")

    window.page.on("response", note)
    yield Desk(window.page, member)
    window.close()
    assert window.calls
    assert refused == []
    assert window.errors == []


def is_of_the_interface(response: Response) -> bool:
    """What it has refused on every store.

    Before it knows the experiment it asks for the traces of none, which MLflow grants to admins alone; and
    after a change of the password it makes the browser forget the old one by a login that is wrong, and
    opens the page again, for which the browser asks for a password.
    """
    asks_for_none = response.url.endswith("/traces/search") and '"locations":[]' in str(
        response.request.post_data
    )
    logs_out = "//mlflow-logged-out-" in response.url or response.request.is_navigation_request()
    return (response.status == 403 and asks_for_none) or (response.status == 401 and logs_out)


def a_judge_is_made_that_runs_by_schedule(desk: Desk, work: Work) -> None:
    desk.go(f"/experiments/{work.experiment}/judges?workflowType=genai", "team-a")
    desk.part(f"{JUDGE}.empty-state-add-llm-scorer-button").click()
    desk.part(f"{JUDGE}.name-input").fill("relevant")
    desk.page.get_by_text("Evaluation criteria").click()
    desk.part(f"{JUDGE}.built-in-scorer-select").click()
    desk.choose("Relevance to Query")
    desk.part("mlflow.endpoint-selector.select").click()
    desk.choose(ENDPOINT)
    desk.confirm("Create judge")


def a_workspace_is_made_and_described(desk: Desk) -> None:
    desk.go("/")
    desk.part(f"{HOME}.workspaces.create_button").click()
    desk.part(f"{HOME}.create_workspace_modal.workspace_name_input").fill("team-b")
    desk.page.get_by_role("dialog").get_by_role("button", name="Create", exact=True).click()
    desk.page.wait_for_url("**workspace=team-b**")
    desk.go("/")
    row = desk.page.get_by_role("row").filter(has_text="team-b")
    row.hover()
    row.get_by_role("button", name="Edit workspace").click()
    desk.page.get_by_placeholder("Enter workspace description").fill("the second team")
    desk.confirm("Save")
    expect(row).to_contain_text("the second team")


def users_are_made_and_deleted(desk: Desk) -> None:
    desk.go("/admin")
    for name in ("dora", "eve"):
        desk.part("admin.users.create_button").click()
        desk.part("admin.create_user_modal.username").fill(name)
        desk.part("admin.create_user_modal.password").fill(desk.member.team.password_of(name))
        desk.confirm("Create user")
        expect(desk.page.get_by_role("link", name=name, exact=True)).to_be_visible()
    row = desk.page.get_by_role("row").filter(has_text="eve")
    row.get_by_role("checkbox").check()
    desk.part("admin.users.bulk_delete_button").click()
    desk.confirm("Delete")
    expect(row).to_have_count(0)


def a_role_is_made_and_given(desk: Desk) -> None:
    """With a permission, to a user who becomes an admin, too."""
    desk.go("/admin?tab=roles")
    desk.part("admin.roles.create_button").click()
    desk.part("admin.create_role_modal.name").fill("makers")
    desk.part("admin.create_role_modal.workspace").click()
    desk.choose("team-b")
    dialog = desk.page.get_by_role("dialog")
    dialog.get_by_text("Permissions", exact=True).click()
    desk.part("admin.role_permission_form.permission_level").click()
    desk.choose("EDIT")
    desk.part("admin.role_permissions.add").click()
    desk.confirm("Create role")
    desk.page.get_by_role("link", name="makers").click()
    expect(desk.page.get_by_text("EDIT", exact=True).first).to_be_visible()

    desk.go("/admin/users/dora", "team-b")
    desk.part("admin.user_detail.edit_access_button").click()
    desk.part("admin.role_assignment.roles").click()
    desk.choose("makers")
    desk.page.keyboard.press("Escape")
    dialog.get_by_text("This user is an admin").click()
    desk.part("admin.edit_access_modal.review").click()
    desk.confirm("Apply changes")
    expect(desk.part("admin.user_detail.admin_tag").first).to_be_visible()
    expect(desk.page.get_by_text("makers").first).to_be_visible()


def a_password_is_changed(desk: Desk) -> None:
    desk.go("/account")
    desk.part("account.change_password_button").click()
    desk.part("account.current_password").fill(desk.member.password)
    for name in ("new_password", "confirm_password"):
        desk.part(f"account.{name}").fill(NEXT)
    desk.page.get_by_role("dialog").get_by_role("button", name="Update password").click()
    expect(desk.page.get_by_role("dialog")).to_have_count(0)


def a_workspace_shows_its_own_runs(desk: Desk) -> None:
    desk.member.within("team-b").ask("POST", "/api/2.0/mlflow/experiments/create", name="of the second team")
    desk.go("/experiments", "team-a")
    expect(desk.page.get_by_text("support", exact=True).first).to_be_visible()
    desk.part("workspace_selector").click()
    desk.choose("team-b")
    expect(desk.page.get_by_text("of the second team").first).to_be_visible()
    expect(desk.page.get_by_text("support", exact=True)).to_have_count(0)


def what_the_judge_said_is_shown(desk: Desk, work: Work) -> None:
    desk.go(f"/experiments/{work.experiment}/traces?workflowType=genai", "team-a")
    tags = desk.part("shared.model-trace-explorer.assesment-value-tag")
    for verdict in ("yes", "no"):
        expect(tags.filter(has_text=re.compile(verdict, re.IGNORECASE)).first).to_be_visible()
