"""The page at `/`: its files, what it asks, and itself in Chromium where there is one.

OSTINATO_SHOTS=DIR keeps a screenshot of each panel in both themes and widths, to be looked at;
without it two of these four are tried.
"""

from __future__ import annotations

import base64
import os
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from serving import GOLDEN, Process, golden, run, serving

from ostinato_learn import runtime
from ostinato_learn.cli import app

PAGE = resources.files("ostinato_learn.serve").joinpath("static")
EXAMPLES = Path(__file__).parents[4] / "examples"


def test_the_page_is_small_and_asks_nobody_else():
    files = {path.name: path.read_bytes() for path in PAGE.iterdir()}
    assert sorted(files) == ["index.html", "page.css", "page.js"]
    assert sum(map(len, files.values())) < 150_000
    text = b"".join(files.values()).replace(b"http://www.w3.org/2000/svg", b"")
    for other in (b"http://", b"https://", b"//cdn", b"@import", b"innerHTML", b"eval("):
        assert other not in text

    async def test():
        async with serving(golden("gru"), tokens=("secret-1",)) as client:
            for path, kind in (("/", "html"), ("/page/page.js", "java"), ("/page/page.css", "css")):
                answer = await client.get(path)  # the page itself asks for the token
                assert answer.status_code == 200 and kind in answer.headers["content-type"]
                assert "script-src 'self'" in answer.headers["content-security-policy"]
            for path in ("/page/%2e%2e%2fapp.py", "/page/page.py", "/page/"):
                assert (await client.get(path)).status_code == 404
            assert (await client.get("/v2/models/gru/card")).status_code == 401

    run(test())


def test_suggestions_bits_and_writing_are_those_of_the_model():
    model = runtime.load(GOLDEN / "language")

    async def test():
        async with serving(golden("language", "gru")) as client:
            path = "/v2/models/language"
            answer = await client.post(f"{path}/suggest", json={"text": "to b", "n": 3})
            wanted = [each._asdict() for each in model.suggest("to b", 3)]
            assert answer.json()["suggestions"] == wanted
            assert "".join(token for token, _ in answer.json()["bits"]) == "to b"
            strange = await client.post(f"{path}/suggest", json={"text": "to ß", "n": 3})
            assert "".join(token for token, _ in strange.json()["bits"]) == "to ß"
            proba = model.predict_proba(["to b"])[0]
            t = model.labels.tolist().index("t")
            assert answer.json()["bits"][0][1] == -np.log2(np.float64(proba[0, t]))
            body = {"prompt": "to", "n": 30, "seed": 3, "temperature": 0.7}
            answer = await client.post(f"{path}/write", json=body)
            assert answer.text == model.generate("to", 30, seed=3, temperature=0.7).text
            for bad in ({"text": 3}, {"text": "a", "n": 0}, {"text": "a", "m": 1}, {}, []):
                assert (await client.post(f"{path}/suggest", json=bad)).status_code == 400
            for bad in ({"n": 0}, {"temperature": -1}, {"seed": -1}, {"prompt": None}):
                assert (await client.post(f"{path}/write", json=bad)).status_code == 400
            answer = await client.post("/v2/models/gru/suggest", json={"text": "a"})
            assert answer.status_code == 400 and "language model" in answer.json()["error"]
            assert (await client.get("/v2/models/gru/card")).json()["text"].startswith("---")
            assert (await client.get("/v2/models/gru/examples")).status_code == 404
            assert (await client.post("/v2/models/gru/table", content="a")).status_code == 400

    run(test())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of each kind that the page has a panel for."""
    place = tmp_path_factory.mktemp("runs")
    series = np.arange(80)[None] + 10 * np.sin(np.arange(80) / 3) + np.arange(4)[:, None]
    rows = [f"s{i},{t},{v:.2f}" for i, one in enumerate(series) for t, v in enumerate(one)]
    (place / "shops.csv").write_text("shop,day,sales\n" + "\n".join(rows) + "\n")
    sums = [f"{i},{(i + t) % 7},{i % 5}" for i in range(50) for t in range(6)]
    (place / "sums.csv").write_text("id,a,sum\n" + "\n".join(sums) + "\n")
    trips = [str(EXAMPLES / "trips.csv"), "--id", "trip", "--features", "speed,turn"]
    (place / "text.txt").write_text("to be or not to be, that is the question. " * 200)
    for name, arguments in {
        "digits": ["mnist", "--iterations", "300", "--hidden-size", "48"],
        "trips": [*trips, "--classify", "mode", "--iterations", "30"],
        "sums": [str(place / "sums.csv"), "--regress", "sum", "--id", "id", "--features", "a",
                 "--iterations", "10"],
        "shops": [str(place / "shops.csv"), "--forecast", "sales", "--horizon", "5", "--id",
                  "shop", "--time", "day", "--iterations", "20"],
        "text": [str(place / "text.txt"), "--iterations", "60", "--hidden-size", "32"],
    }.items():  # fmt: skip
        assert app.main(["train", *arguments, "-q", "-o", str(place / name)]) == 0
    return place


@pytest.mark.slow
def test_a_table_has_the_answers_of_predict(trained, capsys):
    sums = trained / "sums.csv"
    assert app.main(["predict", str(trained / "sums"), str(sums)]) == 0
    numbers = capsys.readouterr().out
    table = EXAMPLES / "new_trips.csv"
    assert app.main(["predict", str(trained / "trips"), str(table), "--proba"]) == 0
    wanted = capsys.readouterr().out
    with Process(str(trained / "trips"), str(trained / "sums"), "--quiet") as server:
        path = server.url + "/v2/models/sums"
        answer = server.client.post(f"{path}/table", content=sums.read_bytes()).json()
        assert answer == {"csv": numbers, "belief": {}}
        path = server.url + "/v2/models/trips"
        answer = server.client.post(f"{path}/table", content=table.read_bytes()).json()
        assert answer["csv"] == wanted
        last = answer["belief"]["t1"][-1]
        assert f"{max(last):.6f}" == wanted.split("\n")[1].split(",")[2]
        for bad in (b"", b"trip,time\n1,2\n", b"\xff\xfe\0", b"trip,time,speed,turn\na,1,x,2\n"):
            refused = server.client.post(f"{path}/table", content=bad)
            assert refused.status_code == 400, bad
            assert "/tmp" not in refused.text and "Traceback" not in refused.text


@pytest.fixture(scope="module")
def server(trained):
    runs = [str(trained / name) for name in ("digits", "trips", "shops", "text")]
    with Process(*runs, "--quiet") as process:
        yield process


WINDOWS = [(1100, "light"), (390, "dark"), (1100, "dark"), (390, "light")]


@pytest.fixture(params=WINDOWS if "OSTINATO_SHOTS" in os.environ else WINDOWS[:2])
def browser(request):
    webdriver = pytest.importorskip("selenium.webdriver")
    driver = shutil.which("chromedriver")
    if driver is None:
        pytest.skip("there is no chromedriver (Debian: chromium-driver)")
    width, theme = request.param
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    found.execute_cdp_cmd(
        "Emulation.setEmulatedMedia",
        {
            "features": [{"name": "prefers-color-scheme", "value": theme}],
        },
    )
    found.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {
            "width": width,
            "height": 900,
            "deviceScaleFactor": 1,
            "mobile": width < 500,
        },
    )
    found.shown = f"{width}-{theme}"
    try:
        yield found
        # Nothing was refused, nothing is wider than the window.
        assert [line for line in found.get_log("browser") if line["level"] == "SEVERE"] == []
    finally:
        found.quit()


class Shown:
    """A model's panel in the browser."""

    def __init__(self, browser, server, name):
        self.browser = browser
        browser.get(f"{server.url}/?{name}#{name}")
        self.wait(lambda: self.text("name") == name)

    def __call__(self, id):
        return self.browser.find_element("id", id)

    def text(self, id):
        return self(id).text

    def wait(self, what, seconds=20):
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.browser, seconds, 0.05).until(lambda _: what())

    def done(self, name):
        """Nothing went wrong; and a screenshot, if they are wanted."""
        assert not self("problem").is_displayed(), self.text("problem")
        script = """
            const root = document.documentElement;
            return [innerWidth, root.scrollWidth, root.scrollHeight];
        """
        width, wide, height = self.browser.execute_script(script)
        assert wide <= width
        if place := os.environ.get("OSTINATO_SHOTS"):
            clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
            shot = self.browser.execute_cdp_cmd(
                "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip}
            )
            file = Path(place, f"{name}-{self.browser.shown}.png")
            file.write_bytes(base64.b64decode(shot["data"]))


@pytest.mark.slow
@pytest.mark.process
def test_a_digit_is_drawn_and_read_row_by_row(browser, server):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    page = Shown(browser, server, "digits")
    assert not page("read").is_enabled()
    pad = page("pad")
    side = pad.rect["width"]
    mouse = ActionChains(browser).move_to_element_with_offset(pad, -side // 5, -side // 3)
    mouse.click_and_hold().move_by_offset(side * 2 // 5, 0)
    mouse.move_by_offset(-side // 5, side * 3 // 5).release().perform()
    page("step").click()
    page.wait(lambda: "row 1 of 28" in page.text("belief-said"))
    page("speed").send_keys(Keys.END)
    page("read").click()
    page.wait(lambda: "row 28 of 28" in page.text("belief-said"))
    assert "row 28 of 28: 7" in page.text("belief-said")
    found = page("belief").find_elements("class name", "share")
    shares = [float(each.text.rstrip(" %")) for each in found]
    assert len(shares) == 10 and abs(sum(shares) - 100) < 1
    assert "It changed its mind at row" in page.text("course-said")
    assert page("course").find_elements("class name", "mark")
    page.done("digit")
    page("example").click()
    page.wait(lambda: "test part" in page.text("belief-said"))
    page("read").click()
    page.wait(lambda: "The label is" in page.text("belief-said"))
    # with the keyboard alone: a line downwards
    page("clear").click()
    page("pad").send_keys(" ")
    keys = ActionChains(browser).key_down(Keys.SHIFT).send_keys(Keys.ARROW_DOWN * 16)
    keys.key_up(Keys.SHIFT).perform()
    page("read").click()
    page.wait(lambda: "row 28 of 28" in page.text("belief-said"))
    assert "row 28 of 28: 1" in page.text("belief-said")


@pytest.mark.slow
@pytest.mark.process
def test_a_text_is_completed_and_written_and_stopped(browser, server):
    page = Shown(browser, server, "text")
    page("typed").send_keys("to be or no")
    page.wait(lambda: "over 11" in page.text("bits-said"))
    page.wait(lambda: len(page("suggestions").find_elements("tag name", "button")) == 5)
    first = page("suggestions").find_elements("tag name", "button")[0]
    path = server.url + "/v2/models/text/suggest"
    found = server.client.post(path, json={"text": "to be or no", "n": 1}).json()
    first.click()
    wanted = "to be or no" + found["suggestions"][0]["text"]
    page.wait(lambda: page("typed").get_property("value") == wanted)
    page.wait(lambda: "over 12" in page.text("bits-said"))
    assert len(page("bits").find_elements("tag name", "span")) == 12
    page.done("text")
    for name, value in (("n", "10000"), ("temperature", "0")):  # the likeliest, without an end
        page(name).clear()
        page(name).send_keys(value)
    page("write").click()
    page.wait(lambda: len(page.text("written")) > 60)
    page("stop").click()
    page.wait(lambda: "It was stopped" in page.text("written-said"))
    page.wait(page("write").is_enabled)


@pytest.mark.slow
@pytest.mark.process
def test_a_csv_is_dropped_and_its_answers_downloaded(browser, server, trained):
    page = Shown(browser, server, "trips")
    drop = """
        const data = new DataTransfer();
        data.items.add(new File([arguments[0]], "new.csv", {type: "text/csv"}));
        document.getElementById("rows").dispatchEvent(
            new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
    """
    browser.execute_script(drop, (EXAMPLES / "new_trips.csv").read_text())
    page.wait(lambda: page.text("rows-said") == "6 answers.")
    assert "mind" in page.text("chart-said")
    assert page("download").get_attribute("href").startswith("blob:")
    csv = browser.execute_script("return asked.csv")
    assert csv.count("\n") == 7 and csv.startswith("id,prediction,probability")
    page.done("table")
    page = Shown(browser, server, "shops")
    page("file").send_keys(str(trained / "shops.csv"))
    page.wait(lambda: page.text("rows-said") == "20 answers.")
    assert "the next 5" in page.text("chart-said")
    assert len(page("chart").find_elements("tag name", "polygon")) == 4
    page.done("forecast")
    page("rows").clear()
    page("rows").send_keys("shop,day\na,1")
    page("answer").click()
    page.wait(page("problem").is_displayed)
    assert "sales" in page.text("problem")
    assert browser.get_log("browser")  # the 400, which is no fault of the page
