"""prepare on distributed runners: Beam's job server and workers as processes, and Dataflow up to its door."""

import http.server
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import threading

import pytest

ROOT = pathlib.Path(__file__).parent.parent


def shards(files):
    return {name: content for name, content in files.items() if ".tfrecord-" in name}


def local_files(directory):
    return {path.name: path.read_bytes() for path in pathlib.Path(directory).iterdir() if path.is_file()}


def test_the_portable_runner_gives_the_bytes_of_a_local_job(
    portable_runner, orchestra, clips_dir, melcache_json, tmp_path
):
    options, workers_log = portable_runner
    told = melcache_json("prepare", f"--manifest={orchestra}/notes.csv", "--group=group", f"--output={tmp_path}/clips",
                         "--max_reject_fraction=0.3", "--", *options)  # fmt: skip
    assert told["num_clips"] == 12
    assert "Starting worker" in workers_log.read_text()  # the work was not done in the command's own process
    made, local = local_files(tmp_path / "clips"), local_files(clips_dir)
    assert shards(made) == shards(local) and made["COMPLETED"] == local["COMPLETED"]


def test_the_portable_runner_reads_and_writes_a_bucket(portable_runner, bucket, orchestra, clips_dir, melcache_json):
    options, _ = portable_runner
    notes = bucket.upload(orchestra, "notes")
    melcache_json("prepare", f"--manifest={notes}/notes.csv", "--group=group", f"--output={bucket.url}/clips",
                  "--max_reject_fraction=0.3", "--", *options, env=bucket.env)  # fmt: skip
    made, local = bucket.files("clips"), local_files(clips_dir)
    assert shards(made) == shards(local) and made["rejects.jsonl"] == local["rejects.jsonl"]


class DataflowStub(http.server.ThreadingHTTPServer):
    """Takes jobs as Dataflow's REST service does, keeps them in `jobs`, runs nothing, and calls them `state`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _DataflowRequest)
        self.jobs = []
        self.state = "JOB_STATE_DONE"


class _DataflowRequest(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.jobs.append((self.path, json.loads(content)))
        answer = json.dumps({"id": "stub-job", "currentState": self.server.state}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def dataflow():
    with DataflowStub() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def dataflow_command(bucket, notes, *options):
    return [
        "prepare", f"--manifest={notes}/notes.csv", "--group=group", f"--output={bucket.url}/clips",
        "--max_reject_fraction=0.3", "--quiet", "--",
        "--runner=DataflowRunner", "--project=test-project", "--region=europe-west1",
        f"--staging_location={bucket.url}/staging", f"--temp_location={bucket.url}/tmp", "--setup_file=./setup.py",
        *options,
    ]  # fmt: skip


def assert_nothing_looks_whole(done, bucket):
    """A job that never ran ends as an error, and leaves what the same command goes on from."""
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.startswith("melcache prepare: error: ")
    made = bucket.files("clips")
    assert made and all(name.startswith("unfinished/") for name in made)


def test_dataflow_gets_the_job_with_its_options_and_the_package(bucket, dataflow, orchestra, melcache, tmp_path):
    notes = bucket.upload(orchestra, "notes")
    command = dataflow_command(
        bucket, notes, f"--dataflow_endpoint=http://localhost:{dataflow.server_port}", "--machine_type=e2-standard-4",
        "--max_num_workers=7", "--autoscaling_algorithm=THROUGHPUT_BASED", "--job_name=notes",
        "--sdk_container_image=europe-docker.pkg.dev/test-project/images/melcache:1",
    )  # fmt: skip
    assert_nothing_looks_whole(melcache(*command, env=bucket.env), bucket)  # the stub says DONE, and did nothing

    ((path, job),) = dataflow.jobs
    assert "/projects/test-project/locations/europe-west1/jobs" in path
    assert job["name"] == "notes" and job["type"] in ("JOB_TYPE_BATCH", 1)
    options = job["environment"]["sdkPipelineOptions"]["options"]
    assert options["runner"] == "DataflowRunner" and options["project"] == "test-project"
    assert options["region"] == "europe-west1" and options["save_main_session"] is False
    (pool,) = job["environment"]["workerPools"]
    assert pool["machineType"] == "e2-standard-4" and pool["autoscalingSettings"]["maxNumWorkers"] == 7
    (image,) = pool["sdkHarnessContainerImages"]
    assert image["containerImage"] == "europe-docker.pkg.dev/test-project/images/melcache:1"

    # What workers install is whole: it imports where nothing of ours is.
    (archive,) = (package["location"] for package in pool["packages"] if package["name"] == "workflow.tar.gz")
    with tarfile.open(fileobj=io.BytesIO(bucket.read(archive.split("/", 2)[2]))) as file:
        file.extractall(tmp_path / "package", filter="data")
    (package,) = (tmp_path / "package").iterdir()
    (tmp_path / "empty").mkdir()
    code = (
        "import beam_preprocess.pipeline as p, sys, launch.beam_extraction; print(p.__file__, 'keras' in sys.modules)"
    )
    imported = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path / "empty", env={**os.environ, "PYTHONPATH": str(package)}, capture_output=True, text=True,
    )  # fmt: skip
    assert imported.stdout.strip() == f"{package}/beam_preprocess/pipeline.py False", imported.stderr


def test_a_job_that_dataflow_reports_as_failed_is_an_error(bucket, dataflow, orchestra, melcache):
    dataflow.state = "JOB_STATE_FAILED"
    notes = bucket.upload(orchestra, "notes")
    endpoint = f"--dataflow_endpoint=http://localhost:{dataflow.server_port}"
    container = [
        "--sdk_container_image=europe-docker.pkg.dev/test-project/images/melcache:1",
        "--sdk_location=container",
    ]
    done = melcache(*dataflow_command(bucket, notes, endpoint, *container), env=bucket.env)
    assert len(dataflow.jobs) == 1
    assert_nothing_looks_whole(done, bucket)
    assert "the same command continues" in done.stderr


def test_a_template_runs_nothing_and_makes_no_dataset(bucket, orchestra, melcache):
    notes = bucket.upload(orchestra, "notes")
    done = melcache(
        *dataflow_command(bucket, notes, f"--template_location={bucket.url}/tmp/template.json"), env=bucket.env
    )
    assert json.loads(bucket.read("tmp/template.json"))["type"] == "JOB_TYPE_BATCH"
    assert_nothing_looks_whole(done, bucket)
