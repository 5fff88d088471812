"""Tools of an MCP server for an agent: `pip install "keyeloop[mcp]" mcp-server-time`, then `python mcp_tools.py`.

A server that runs already is named by its address: `McpServer("http://127.0.0.1:8000/mcp")`. On the command line the
same is `keyeloop run ... --tool "mcp:python -m mcp_server_time"`.
"""

import sys

from keyeloop import Agent
from keyeloop.model_backend.scripted import ScriptedBackend, call
from keyeloop.tools import McpServer

if __name__ == "__main__":
    with McpServer([sys.executable, "-m", "mcp_server_time"]) as server:
        for spec in server.tools.specs:
            print(f"{spec.name}: {spec.description}")
        tools = server.tools.filtered("convert_*").prefixed("clock_")
        tokyo = {"source_timezone": "Asia/Tokyo", "time": "09:30", "target_timezone": "Asia/Kolkata"}
        model = ScriptedBackend([call("clock_convert_time", **tokyo), "Six in the morning."])
        answer = Agent(model, tools).run_sync("It is 9:30 in Tokyo. What time is it in Kolkata?")
        print(answer, answer.run)
