import assert from 'node:assert/strict'
import { test } from 'node:test'
import { printable } from './printable.ts'

test('what a person would write stays as it is', () => {
  for (const text of ['', '10.10.30.0-24', 'Knoten "ä" 🐙', 'x'.repeat(200)])
    assert.equal(printable(text), text)
})

test('what would steer a terminal, break a line or reverse the text is escaped', () => {
  assert.equal(printable('\u001b[2J\r\n\u009b'), '\\u{1b}[2J\\u{d}\\u{a}\\u{9b}')
  assert.equal(printable('\u202eevil\u2028'), '\\u{202e}evil\\u{2028}')
})

test('what is long loses its middle', () => {
  assert.equal(
    printable(`${'x'.repeat(1024 * 1024)} is no key`),
    `${'x'.repeat(100)}…${'x'.repeat(90)} is no key`,
  )
})
