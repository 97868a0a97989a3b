/**
 * `far.ts train`: trains a model as an option file says.
 *
 * @module
 */
import { videoEnding } from "../lib/pipeline/pictures.ts";
import { planFar } from "../lib/pipeline/training_plan.ts";
import { choice, type Values, verb } from "./args.ts";
import { train, trainingFlags } from "./training.ts";

const flags = {
  ...trainingFlags,
  format: choice(
    ["auto", "mp4", "gif", "webm"],
    "kind of the sample videos; auto is mp4",
    { default: "auto", presentation: true },
  ),
};

/** `far.ts train`. */
export const trainVerb = verb({
  name: "train",
  summary: "Train a model as an option file says; resumes where an earlier run stopped",
  about:
    "Reads the authors' option files as they are, and files in the same schema with our additions (docs/training.md). The " +
    "folder of the run gets checkpoints, log.jsonl, TensorBoard event files, sample videos and loss.svg. Afterwards " +
    "predict --model FOLDER takes its newest averaged weights, checkpoints/step-N/ema.safetensors; model.safetensors " +
    "beside it holds the raw ones of the last step. The last line of the run says which to use.\n\n" +
    "Ctrl-C finishes the step and saves a checkpoint; the same command then resumes the run, and so it does after a crash: the " +
    "end has the same bits as that of a run that was never interrupted. With other options, another device or other data it " +
    "is refused: it would be a different run (docs/training.md says what may be changed).",
  flags,
  examples: [
    {
      does: "train a small model on pixels of the built-in world",
      line: "train --config experiments/configs/world_tiny.yml",
    },
    {
      does: "train on your own folder of clips, holidays, with the bundled autoencoder",
      line:
        "train --config experiments/configs/own_clips.yml --set datasets.train.data_list=holidays --set datasets.sample.data_list=holidays",
    },
    {
      does: "the authors' FAR-B-Long on latents, with less memory",
      line:
        "train --config train_FAR_B_Long_dmlab.yml --set train.gradient_checkpointing=true --set datasets.train.batch_size_per_gpu=1",
    },
  ],
  run(call) {
    const { format } = call.flags as Values<typeof flags>;
    const kind = { name: "train", pipeline: "FARTrainer", flags } as const;
    return train(kind, call, (options) => planFar(options, videoEnding(format)));
  },
});
