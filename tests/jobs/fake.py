"""A small script that stands in for the training, and what tests of runs share."""

import json
import time

from patience import SECONDS

OWNER, OTHER = "a" * 32, "b" * 32
# writes what the training core writes: a lock, status.json with a heartbeat, a step number that survives
FAKE = """
import fcntl, json, os, signal, sys, time
args = sys.argv[1:]
out = args[args.index('--out') + 1]
lock = open(out + '/.lock', 'w'); fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
resume = '--resume' in args
settings = dict(a.split('=') for f, a in zip(args, args[1:]) if f == '--set')
if not resume: json.dump(settings, open(out + '/config.json', 'w'))
settings = json.load(open(out + '/config.json'))
if settings.get('bad') == 'yes': sys.exit('dinodemo: a setting is wrong; choose another')
total = int(settings.get('steps', 40)); stop = []
signal.signal(signal.SIGTERM, lambda *a: stop.append(1))
try: step = int(open(out + '/step').read())
except (OSError, ValueError): step = 0
def put(name, text):
    with open(out + '/part', 'w') as file: file.write(text)
    os.replace(out + '/part', out + '/' + name)
def tell(state):
    status = dict(state=state, step=step, total=total, eta_s=1.0, heartbeat=time.time(), pid=os.getpid(),
                  message='')
    put('status.json', json.dumps(status))
while step < total:
    if stop: tell('stopped'); sys.exit()
    if os.path.exists(out + '/pause'): tell('paused'); time.sleep(0.02); continue
    step += 1; put('step', str(step)); tell('running'); time.sleep(0.02)
tell('finished')
"""


def wait(runs, run_id, *states, seconds=SECONDS):
    """Tick until the run is in one of the states; returns what is known of it."""
    end = time.time() + seconds
    while time.time() < end:
        runs.tick()
        info = runs.info(OWNER, run_id)
        if info.state in states:
            return info
        time.sleep(0.02)
    raise AssertionError(f"{info} is not {states}")


def pid_of(info) -> int:
    return json.loads((info.path / "request.json").read_text())["pid"]
