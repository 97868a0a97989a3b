"""For `jupyter nbconvert --execute --config`: waits for results that come late.

The Deno kernel (2.9.6) sometimes reports that it is idle before it sends the result of a cell, 3 to 7 times in 80 (cpu,
2026-11-21). nbclient stops listening when the kernel is idle and would lose that result.
"""
from queue import Empty

from jupyter_core.utils import ensure_async
from nbclient import NotebookClient

until_idle = NotebookClient._async_poll_output_msg


async def until_quiet(self, parent_msg_id, cell, cell_index):
    await until_idle(self, parent_msg_id, cell, cell_index)
    while True:
        try:
            message = await ensure_async(self.kc.iopub_channel.get_msg(timeout=0.3))
        except Empty:
            return
        if message["parent_header"].get("msg_id") == parent_msg_id:
            self.process_message(message, cell, cell_index)


NotebookClient._async_poll_output_msg = until_quiet
