import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { LineError, Lines } from './lines.ts'

test('law: lines are the same wherever the stream is cut, within a character too', () => {
  const line = fc.string({ unit: 'grapheme' }).filter((text) => !text.includes('\n') && text.trim() !== '')
  fc.assert(
    fc.property(fc.array(line), fc.array(fc.nat({ max: 40 })), (texts, lengths) => {
      const lines = new Lines()
      const bytes = Buffer.from(texts.map((text) => `${text}\n`).join(''))
      const read: string[] = []
      let from = 0
      for (const length of lengths) {
        read.push(...lines.push(bytes.subarray(from, from + length)))
        from += length
      }
      read.push(...lines.push(bytes.subarray(from)))
      assert.deepEqual(read, texts)
    }),
  )
})

test('what has no end is not told; empty lines are left out', () => {
  const lines = new Lines()
  assert.deepEqual(lines.push(Buffer.from('one\n\n \r\ntw')), ['one'])
  assert.deepEqual(lines.push(Buffer.from('o\nthree')), ['two'])
})

test('a line that does not end is given up', () => {
  const lines = new Lines()
  const piece = Buffer.alloc(2 ** 20, 'x')
  assert.throws(() => {
    for (let i = 0; i < 100; i++) lines.push(piece)
  }, LineError)
})
