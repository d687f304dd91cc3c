#!/usr/bin/env python3
"""A member of a consumer group: takes events from the stream that nginx-conf/queue.conf writes and adds up the revenue of each account.

    REDIS_URL=redis://127.0.0.1:6379/0 python3 group.py consumer-1

Run as many as you like, each under a name of its own. Any of them may be killed at any time: what it had taken goes to another one, and
nothing is counted twice. Needs redis-py (python3-redis, or pip install redis) and Redis 6.2 or newer. An error of Redis ends it: let
systemd start it again.
"""

import json
import os
import sys

import redis

STREAM = "orders"
GROUP = "billing"
# The braces keep all keys in one slot of a Redis Cluster; "orders" alone is in the same.
DEAD = "{orders}:dead"
REVENUE = "{orders}:revenue"
SEEN = "{orders}:seen:"

# How long an event may be in work before another consumer takes it over, in milliseconds: longer than the slowest needs.
IDLE = int(os.environ.get("IDLE_MS", 60_000))
# An event that was delivered so often and never finished is set aside.
DELIVERIES = int(os.environ.get("DELIVERIES", 5))
# How long an id is remembered, in seconds: longer than a client, a queue or a spool may take to send an event again.
REMEMBER = 7 * 24 * 3600

# The effect, the mark that it was done and the acknowledgement are one step: a consumer that is killed has done all three or none.
# A number goes through as text, for Lua would round it.
FINISH = """
if redis.call('SET', KEYS[2], 1, 'NX', 'EX', ARGV[3]) then
    redis.call('HINCRBY', KEYS[3], ARGV[4], ARGV[5])
end
return redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
"""

# Whoever acknowledges it sets it aside, so that two who try leave one. What was trimmed meanwhile is gone.
SET_ASIDE = """
local entry = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1]
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 1 and entry then
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', 100000, '*', 'entry', ARGV[2], unpack(entry[2]))
end
"""


def main(name):
    client = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0"), decode_responses=True)
    finish = client.register_script(FINISH)
    set_aside = client.register_script(SET_ASIDE)
    try:
        # From the beginning ("0"), not from now on ("$"): what came before the group is work too.
        client.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    except redis.ResponseError as error:
        if "BUSYGROUP" not in str(error):
            raise

    while True:
        take_over(client, name, finish, set_aside)
        # While there is nothing new, what others left is looked for once in a while.
        batches = client.xreadgroup(GROUP, name, {STREAM: ">"}, count=100, block=min(IDLE, 5000))
        for _, entries in batches or []:
            for entry, fields in entries:
                handle(entry, fields, finish)


def take_over(client, name, finish, set_aside):
    """Does what others took and did not finish, and what failed; sets aside what has failed too often."""
    for pending in client.xpending_range(STREAM, GROUP, "-", "+", 100, idle=IDLE):
        if pending["times_delivered"] >= DELIVERIES:
            print(f"{pending['message_id']}: set aside after {pending['times_delivered']} deliveries", file=sys.stderr)
            set_aside(keys=[STREAM, DEAD], args=[GROUP, pending["message_id"]])
    # One at a time: an event that kills its consumer adds to its own count of deliveries, and to no other's.
    while True:
        entries = client.xautoclaim(STREAM, GROUP, name, min_idle_time=IDLE, start_id="0-0", count=1)[1]
        if not entries:
            return
        for entry, fields in entries:
            handle(entry, fields, finish)


def handle(entry, fields, finish):
    try:
        # An int of Python holds any integer; a float would round above 2^53.
        order = json.loads(fields["data"])
        id, account, cents = fields["id"], order["account"], order["cents"]
        if type(account) is not int or type(cents) is not int:
            raise ValueError("account and cents must be integers")
    except (KeyError, TypeError, ValueError) as error:
        # It stays pending, and comes again after IDLE: the trouble may be over by then.
        print(f"{entry}: {error!r}", file=sys.stderr)
        return
    finish(keys=[STREAM, SEEN + id, REVENUE], args=[GROUP, entry, REMEMBER, account, cents])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} NAME")
    try:
        main(sys.argv[1])
    except KeyboardInterrupt:
        pass
