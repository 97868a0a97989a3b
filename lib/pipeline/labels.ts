/**
 * Class labels by number or by name.
 *
 * @module
 */
import { didYouMean, nearest } from "../nearest.ts";
import { ChoiceError } from "./choice.ts";

/** The classes of UCF-101 in the order of its class index file; label 0 is the first. */
export const UCF101_CLASSES: readonly string[] = (
  "ApplyEyeMakeup ApplyLipstick Archery BabyCrawling BalanceBeam BandMarching BaseballPitch Basketball BasketballDunk " +
  "BenchPress Biking Billiards BlowDryHair BlowingCandles BodyWeightSquats Bowling BoxingPunchingBag BoxingSpeedBag " +
  "BreastStroke BrushingTeeth CleanAndJerk CliffDiving CricketBowling CricketShot CuttingInKitchen Diving Drumming Fencing " +
  "FieldHockeyPenalty FloorGymnastics FrisbeeCatch FrontCrawl GolfSwing Haircut Hammering HammerThrow HandstandPushups " +
  "HandstandWalking HeadMassage HighJump HorseRace HorseRiding HulaHoop IceDancing JavelinThrow JugglingBalls JumpingJack " +
  "JumpRope Kayaking Knitting LongJump Lunges MilitaryParade Mixing MoppingFloor Nunchucks ParallelBars PizzaTossing " +
  "PlayingCello PlayingDaf PlayingDhol PlayingFlute PlayingGuitar PlayingPiano PlayingSitar PlayingTabla PlayingViolin " +
  "PoleVault PommelHorse PullUps Punch PushUps Rafting RockClimbingIndoor RopeClimbing Rowing SalsaSpin ShavingBeard Shotput " +
  "SkateBoarding Skiing Skijet SkyDiving SoccerJuggling SoccerPenalty StillRings SumoWrestling Surfing Swing TableTennisShot " +
  "TaiChi TennisSwing ThrowDiscus TrampolineJumping Typing UnevenBars VolleyballSpiking WalkingWithDog WallPushups " +
  "WritingOnBoard YoYo"
).split(" ");

/**
 * The number of a label.
 *
 * @param given A number, or a name of UCF-101 where the model has 101 classes.
 * @param classes Classes that the model knows.
 * @throws {ChoiceError} If there is no such class.
 */
export function labelNumber(given: string, classes: number): number {
  if (/^\d+$/.test(given)) {
    const number = Number(given);
    if (number < classes) return number;
    throw new ChoiceError(`{label}: expected 0 to ${classes - 1}, found ${given}`);
  }
  if (classes !== UCF101_CLASSES.length) {
    throw new ChoiceError(
      `{label}: expected a number from 0 to ${
        classes - 1
      }, found ${given} (names are known for UCF-101 only)`,
    );
  }
  const plain = (name: string) => name.toLowerCase().replace(/[-_ ]/g, "");
  const found = UCF101_CLASSES.findIndex((name) => plain(name) === plain(given));
  if (found >= 0) return found;
  throw new ChoiceError(
    `{label}: there is no UCF-101 class ${given}${didYouMean(given, UCF101_CLASSES)}` +
      (nearest(given, UCF101_CLASSES)
        ? ""
        : `, expected a number from 0 to ${classes - 1} or a name such as Archery`),
  );
}
