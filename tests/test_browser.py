"""JupyterLab in a real browser: the slider is moved by keyboard, and the picture changes."""

import base64
import io
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest

for package in ("cartopy", "ipywidgets", "jupyterlab", "selenium"):
    pytest.importorskip(package)

import nbformat
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE_S = 120

CELL = """
import numpy as np, xarray as xr, climlstm
latitude, longitude = np.arange(80.0, -81, -10), np.arange(0.0, 360, 10)
leads = (np.arange(1, 5) * np.timedelta64(6, "h")).astype("m8[ns]")
wave = np.cos(np.deg2rad(longitude) - np.arange(4)[:, None, None] + 0 * latitude[:, None])
forecast = xr.Dataset(
    {"t2m": (("init_time", "lead_time", "latitude", "longitude"), 280 + 15 * wave[None])},
    {"init_time": [np.datetime64("2020-01-01", "ns")], "lead_time": leads,
     "latitude": latitude, "longitude": longitude},
)
forecast["t2m"].attrs["units"] = "K"
forecast.climlstm.explore("t2m", width=5)
"""


@pytest.fixture
def lab(tmp_path):
    """The address of a JupyterLab that shows a notebook with the explorer."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    notebook.metadata["kernelspec"] = {
        "name": "python3", "display_name": "Python 3", "language": "python",
    }  # fmt: skip
    nbformat.write(notebook, tmp_path / "explore.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    settings = {
        name: str(tmp_path / name.lower())
        for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "HOME")
    }
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser",
        "--ip=127.0.0.1", f"--port={port}", f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={tmp_path}", "--allow-root",
    ]  # fmt: skip
    with (tmp_path / "lab.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | settings)
    try:
        _wait_for(f"http://127.0.0.1:{port}/api?token={token}", server, tmp_path / "lab.log")
        yield f"http://127.0.0.1:{port}/lab/tree/explore.ipynb?token={token}&reset"
    finally:
        server.terminate()
        try:
            server.wait(10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_for(url, server, log):
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            return urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.3)


@pytest.fixture
def browser(tmp_path):
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if not (chromium and driver):
        pytest.skip("no Chromium with its driver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--window-size=1200,900", f"--user-data-dir={tmp_path / 'chromium'}",
    ):  # fmt: skip
        options.add_argument(flag)
    opened = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield opened
    opened.quit()


def pixels(image):
    """What an <img> shows; its address has the bytes, or names them within the page."""
    script = """
        const image = arguments[0], done = arguments[arguments.length - 1];
        fetch(image.src).then(r => r.blob()).then(blob => {
            const reader = new FileReader();
            reader.onload = () => done(reader.result.split(",")[1]);
            reader.readAsDataURL(blob);
        });
    """
    data = image.parent.execute_async_script(script, image)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)


@pytest.mark.slow
def test_moving_the_slider_in_jupyterlab_changes_the_picture(lab, browser):
    browser.set_script_timeout(PATIENCE_S)
    browser.get(lab)
    wait = WebDriverWait(browser, PATIENCE_S)
    wait.until(
        lambda page: page.execute_script(
            """
            const dialog = document.querySelector(".jp-Dialog .jp-mod-accept");
            if (dialog) dialog.click();  // which kernel: the one of the notebook
            const panel = window.jupyterapp?.shell.currentWidget;
            return panel?.sessionContext?.session?.kernel?.status === "idle" && !dialog;
            """
        )
    )
    browser.execute_script("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    image = wait.until(lambda page: page.find_element(By.CSS_SELECTOR, "img.widget-image"))
    wait.until(lambda page: image.get_property("naturalWidth") > 100)
    sliders = browser.find_elements(By.CSS_SELECTOR, ".jp-OutputArea .noUi-handle")
    readouts = browser.find_elements(By.CSS_SELECTOR, ".jp-OutputArea .widget-readout")
    assert [each.text for each in readouts] == ["2020-01-01 00:00", "+6 h"]
    before, address = pixels(image), image.get_property("src")
    sliders[-1].send_keys(Keys.ARROW_RIGHT)
    wait.until(lambda page: image.get_property("src") != address)
    wait.until(lambda page: image.get_property("complete"))
    after = pixels(image)
    assert readouts[-1].text == "+12 h"
    assert after.shape == before.shape
    assert (np.abs(after - before).max(axis=-1) > 30).mean() > 0.1  # the wave has moved on
