"""heads and the datasets they come from to one HTML file: tables, curves, log-mel pictures, settings.

melcache report --run=runs/notes
"""

from absl import flags

from launch import command

FLAGS = flags.FLAGS

flags.DEFINE_string("run", None, "The run directory that `melcache heads` made.")
flags.DEFINE_string("output", None, "The HTML file to write; by default report.html in the run directory.")
flags.DEFINE_string("features", None, "Where the feature dataset is now, if it was moved.")
flags.DEFINE_string("data", None, "Where the log-mel dataset is now, if it was moved.")


def main(positional, beam_args):
    command.no_positional([*positional, *beam_args])
    command.required(run=FLAGS.run)
    output = FLAGS.output or f"{FLAGS.run.rstrip('/')}/report.html"
    from launch.report_page import write_report

    write_report(
        run=FLAGS.run, output=output, features=FLAGS.features, data=FLAGS.data, command=command.provenance()["command"]
    )
    command.say(f"report: {output}")
    return {"run": FLAGS.run, "output": output}
