/**
 * Walking in the built-in world by hand: one action, one step, one view.
 *
 * @module
 */
import { move, type Pose } from "./pose.ts";
import { Renderer } from "./render.ts";
import type { Scene } from "./scene.ts";
import { type WorldOptions, worldScene, worldWalk } from "./world.ts";

/**
 * A visitor to the world of a walk, who leaves the walk at one of its frames.
 *
 * @example
 * ```ts
 * import { WorldVisitor } from "./visitor.ts";
 * const visitor = new WorldVisitor({ seed: 0, split: "test", index: 3, steps: "grid" }, 16);
 * const before = visitor.draw();
 * for (let turn = 0; turn < 4; turn++) visitor.act(0);
 * console.assert(visitor.draw().every((v, i) => v === before[i])); // once round
 * ```
 */
export class WorldVisitor {
  /** Rows and columns of a view. */
  readonly size: number;
  readonly #scene: Scene;
  readonly #renderer: Renderer;
  readonly #steps: WorldOptions["steps"];
  #pose: Pose;

  /**
   * Enters the world of a walk.
   *
   * @param options Which walk.
   * @param frame The frame of the walk in whose pose the visitor starts.
   * @throws {RangeError} If an option is out of range.
   */
  constructor(options: WorldOptions, frame: number) {
    this.size = options.size ?? 64;
    this.#scene = worldScene(options);
    this.#renderer = new Renderer(this.#scene, this.size);
    this.#steps = options.steps;
    const [x, y, heading] = worldWalk({ ...options, frames: 1, start: frame }).poses;
    this.#pose = { x, y, heading };
  }

  /** Where the visitor stands. */
  get pose(): Pose {
    return this.#pose;
  }

  /**
   * Takes one step.
   *
   * @param action 0 turn left, 1 turn right, 2 go forward.
   * @throws {RangeError} If there is no such action.
   */
  act(action: number): void {
    this.#pose = move(this.#scene.maze, this.#pose, action, this.#steps);
  }

  /** The view, `[H, W, 3]`, 0 to 255. */
  draw(): Uint8Array<ArrayBuffer> {
    const view = new Uint8Array(this.size * this.size * 3);
    this.#renderer.draw(this.#pose, view);
    return view;
  }
}
