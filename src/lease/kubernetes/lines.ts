/** A stream of bytes as the lines in it. */

/** A line is one event of a watch: etcd takes no object that is larger than a small part of this. Bytes. */
const LONGEST = 2 ** 24

const NEWLINE = 0x0a

/** A line that does not end. */
export class LineError extends Error {
  override readonly name = 'LineError'
}

export class Lines {
  /** What has no end yet. */
  #begun: Buffer[] = []
  #length = 0

  /** The lines that end in this piece, without the ends; empty ones are left out. @throws {LineError} */
  push(piece: Buffer): string[] {
    const lines: string[] = []
    let from = 0
    for (let end = piece.indexOf(NEWLINE); end !== -1; end = piece.indexOf(NEWLINE, from)) {
      const line = Buffer.concat([...this.#begun, piece.subarray(from, end)]).toString()
      if (line.trim() !== '') lines.push(line)
      this.#begun = []
      this.#length = 0
      from = end + 1
    }
    this.#length += piece.length - from
    if (this.#length > LONGEST) throw new LineError(`a line of more than ${LONGEST} bytes`)
    if (from < piece.length) this.#begun.push(piece.subarray(from))
    return lines
  }
}
