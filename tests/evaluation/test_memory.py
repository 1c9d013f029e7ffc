"""Memory does not grow with the length of a video."""

import os
import subprocess
import sys

import numpy as np
import pytest

from .conftest import draw, write_labels

# Peak resident memory of this process and, times their number, of the largest of the others.
MEASURE = """
import resource, sys
from osmn_tf.cli.main import main
if __name__ == "__main__":
    code = main(sys.argv[1:])
    # Not ru_maxrss of this process: across exec it keeps the size of the process that started it.
    own = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print("peak MB", (own + 2 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) // 1024)
    sys.exit(code)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peak memory is measured in kilobytes on Linux only")
def test_two_thousand_frames_of_ten_objects_take_less_than_500_megabytes(tmp_path):
    for root in ("DAVIS/Annotations/480p/long", "mine/long"):
        (tmp_path / root).mkdir(parents=True)
        for step in range(10):
            spots = [
                (40 * k, 20 + 60 * k + 4 * step + (2 if root.startswith("mine") else 0), 90, 110) for k in range(10)
            ]
            write_labels(tmp_path / f"{step}.png", draw(spots, 480, 854))
            for t in range(step, 2000, 10):
                os.link(tmp_path / f"{step}.png", tmp_path / root / f"{t:05d}.png")
            (tmp_path / f"{step}.png").unlink()
    (tmp_path / "DAVIS/ImageSets/2017").mkdir(parents=True)
    (tmp_path / "DAVIS/ImageSets/2017/val.txt").write_text("long\n")
    (tmp_path / "measure.py").write_text(MEASURE)
    command = [sys.executable, str(tmp_path / "measure.py"), "evaluate", str(tmp_path / "DAVIS"), "--workers", "2"]
    command += ["--results", str(tmp_path / "mine"), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "sequences 1, objects 10" in done.stdout
    peak = int(done.stdout.split("peak MB")[1])
    assert 50 < peak < 500
    assert np.genfromtxt(tmp_path / "out/mine/global_results-val.csv", delimiter=",", skip_header=1)[1] < 1
