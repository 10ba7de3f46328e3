/** The demo as a user runs it: every claim holds, and whatever happens the machine is as it was. */

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { stripVTControlCharacters } from 'node:util'
import { ip } from '../../src/lab/command.ts'
import { machineState, remains, startTweed, tweed } from '../tweed.ts'

const LAB = `twldemo${process.pid}`
const NAME = `--name=${LAB}`

let machine: string

before(async () => {
  machine = await machineState()
})

after(async () => {
  await tweed('lab', 'down', NAME)
})

async function assertNothingLeft(): Promise<void> {
  assert.deepEqual(await remains(LAB), [])
  assert.equal(await machineState(), machine)
}

test('all four acts hold', async () => {
  const { code, stdout, stderr } = await tweed('demo', NAME)
  const text = stripVTControlCharacters(stdout)
  assert.equal(code, 0, text + stderr)
  for (const act of ['Act 1', 'Act 2', 'Act 3', 'Act 4']) assert.match(text, new RegExp(`^── ${act}: `, 'm'))
  const checks = text.match(/^ {2}✓ /gm) ?? []
  assert.ok(checks.length >= 30, `${checks.length} checks`)
  assert.match(text, new RegExp(`^PASSED: all ${checks.length} checks hold, in [\\d.]+ s\\.\\n$`, 'm'))
  await assertNothingLeft()
})

test('a claim that does not hold ends it: exit code 1, the act and the reason', async () => {
  const demo = startTweed(['demo', NAME])
  await demo.said('Act 4')
  await ip(`tweed-lab-${LAB}-underlay`, 'link set host-B down')
  const { code, stdout } = await demo.outcome
  assert.equal(code, 1)
  assert.match(stripVTControlCharacters(stdout), /^FAILED: Act 4: it holds: /m)
  await assertNothingLeft()
})

test('an interrupted demo leaves nothing behind', async () => {
  const demo = startTweed(['demo', NAME])
  await demo.said('Act 2')
  demo.kill('SIGINT')
  const { code, stdout } = await demo.outcome
  assert.equal(code, 1)
  assert.match(stripVTControlCharacters(stdout), /^FAILED: interrupted by SIGINT$/m)
  await assertNothingLeft()
})
