import psutil, pytest
from real_tools.wires import ANTHROPIC
from tools.processes import ended
from vendors.script import Call
pytestmark = pytest.mark.anyio
LONG = Call("everything__trigger-long-running-operation", {"duration": 600, "steps": 1})
async def test_x(configure, serve, everything, model):
    await configure({"everything": everything}); model.will(LONG, ends=False)
    async with serve() as host:
        s = await host.call("meerkat_run", prompt="go", wait_seconds=0, **ANTHROPIC.settings)
        await host.event(s["session_id"], "tool_execution_started")
        import anyio; await anyio.sleep(1)
        tree = host.tree(); tree[0].kill()
        left = not await ended(*(p.pid for p in tree))
        for p in tree[1:]:
            if p.is_running(): p.kill()
        print("ORPHAN", left)
