"""A real Home Assistant core that reads an MQTT broker.

    core.py PORT          (Python 3.11 with the packages of requirements.txt)

For each line of standard input it prints one line: the JSON object
{"devices": [...], "entities": {unique id: {"entity_id", "state", "attributes", "device"}}} of what the core knows from MQTT.
"""

import asyncio
import json
import logging
import socket
import sys
import tempfile
from pathlib import Path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def write_configuration(folder: Path, port: int) -> None:
    """A core with MQTT only, already set up: nothing is asked, and nothing is loaded from the network."""
    (folder / "configuration.yaml").touch()
    storage = folder / ".storage"
    storage.mkdir()
    entry = {
        "entry_id": "0123456789abcdef0123456789abcdef",
        "version": 1,
        "minor_version": 1,
        "domain": "mqtt",
        "title": "broker",
        "data": {"broker": "127.0.0.1", "port": port, "discovery": True, "discovery_prefix": "homeassistant"},
        "options": {},
        "pref_disable_new_entities": False,
        "pref_disable_polling": False,
        "source": "user",
        "unique_id": None,
        "disabled_by": None,
    }
    (storage / "core.config_entries").write_text(
        json.dumps({"version": 1, "minor_version": 1, "key": "core.config_entries", "data": {"entries": [entry]}})
    )


def report(hass) -> dict:
    from homeassistant.helpers import device_registry, entity_registry

    entities, devices = {}, {}
    for entry in entity_registry.async_get(hass).entities.values():
        if entry.platform != "mqtt":
            continue
        state = hass.states.get(entry.entity_id)
        entities[entry.unique_id] = {
            "entity_id": entry.entity_id,
            "device": entry.device_id,
            "state": state.state if state else None,
            "attributes": {k: v for k, v in (state.attributes if state else {}).items() if isinstance(v, (str, int, float))},
        }
    for entry in device_registry.async_get(hass).devices.values():
        devices[entry.id] = {"name": entry.name, "manufacturer": entry.manufacturer, "sw_version": entry.sw_version}
    return {"devices": devices, "entities": entities}


async def run(folder: Path) -> None:
    # The parts of homeassistant.bootstrap without the frontend, which MQTT does not need.
    from homeassistant import auth, bootstrap, config_entries, core, loader
    from homeassistant.setup import async_setup_component

    hass = core.HomeAssistant(str(folder))
    hass.config.skip_pip = True
    loader.async_setup(hass)
    hass.config_entries = config_entries.ConfigEntries(hass, {})
    await bootstrap.async_load_base_functionality(hass)
    hass.auth = await auth.auth_manager_from_config(hass, [{"type": "homeassistant"}], [])
    for component, settings in [("homeassistant", {}), ("http", {"server_host": "127.0.0.1", "server_port": free_port()}), ("mqtt", {})]:
        if not await async_setup_component(hass, component, {component: settings} if settings else {}):
            sys.exit(f"the core has not set up {component}")
    await hass.async_start()
    print(json.dumps({"ready": True}), flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        await hass.async_block_till_done()
        print(json.dumps(report(hass)), flush=True)
    await hass.async_stop()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_configuration(Path(folder), int(sys.argv[1]))
        logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
        asyncio.run(run(Path(folder)))


main()
