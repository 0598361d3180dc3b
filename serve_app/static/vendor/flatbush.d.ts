// What this page uses of flatbush.js.
export default class Flatbush {
  constructor(numItems: number, nodeSize?: number, ArrayType?: Float32ArrayConstructor);
  add(minX: number, minY: number, maxX?: number, maxY?: number): number;
  finish(): void;
  search(minX: number, minY: number, maxX: number, maxY: number, filter?: (index: number) => boolean): number[];
  neighbors(x: number, y: number, maxResults?: number, maxDistance?: number, filter?: (index: number) => boolean): number[];
}
