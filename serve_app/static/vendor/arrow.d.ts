// What this page uses of arrow.js.
export interface Vector {
  readonly length: number;
  get(index: number): any;
  toArray(): ArrayLike<number>;
}
export interface Table {
  readonly numRows: number;
  getChild(name: string): Vector | null;
}
export function tableFromIPC(source: Response): Promise<Table>;
