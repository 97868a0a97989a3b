/**
 * The built-in world: walks through mazes, made on the fly, with the true pose of every frame.
 *
 * @module
 */
export type { Maze } from "./maze.ts";
export { type Pose, STEPS, type Steps } from "./pose.ts";
export { ReturnCount, type ReturnOptions, type Returns, type Walk } from "./returns.ts";
export { type Memory, memoryOf, type PlaceOptions, placeSeen, Views } from "./seen.ts";
export { WorldVisitor } from "./visitor.ts";
export {
  type Split,
  type WorldClip,
  worldClip,
  type WorldFrame,
  worldFrames,
  type WorldOptions,
  type WorldRange,
} from "./world.ts";
