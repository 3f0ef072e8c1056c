#!/usr/bin/env python3
"""A backend for Creel: answers with the message backwards, and asks for a tool when told to.

creel.toml:
    [backends.backwards]
    kind = "command"
    argv = ["python3", "/path/to/agent.py"]
    read = ["/path/to"]
"""
import json, sys

def say(**event):
    print(json.dumps(event), flush=True)

turn = json.loads(sys.stdin.readline())
answer = turn["text"][::-1]
for word in answer.split(" "):
    say(type="delta", text=word + " ")
if turn["text"].startswith("run: "):
    say(type="tool_call", id="1", tool="exec", arguments={"command": turn["text"][5:]})
    result = json.loads(sys.stdin.readline())
    answer += " / " + (result["content"] if result["ok"] else result["reason"])
say(type="usage", input_tokens=len(turn["text"]), output_tokens=len(answer))
say(type="final", text=answer)
