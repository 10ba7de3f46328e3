/** What the agent tells Prometheus, judged by Prometheus's own promtool. */

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { test } from 'node:test'
import pino from 'pino'
import { parseIp } from '../src/address/ip.ts'
import { parseMac } from '../src/address/mac.ts'
import { type FdbEntry, type Operation, type Report } from '../src/state.ts'
import { Journal } from '../src/status/journal.ts'
import { exposeMetrics } from '../src/status/metrics.ts'
import { RegistryCalls } from '../src/status/tally.ts'

const ENTRY: FdbEntry = {
  kind: 'fdb',
  link: 'flannel.1',
  mac: parseMac('02:00:00:00:00:01'),
  destination: parseIp('192.168.1.11'),
}

const FDB: Operation = {
  verb: 'add',
  entry: ENTRY,
  why: 'missing',
}

const REPORT: Report = {
  operations: [FDB, FDB],
  failures: [{ operation: FDB, error: new Error('no') }],
  repaired: [FDB],
  misses: { answered: 3, refused: 2 },
  error: undefined,
  duration: 250,
}

test("the figures are the journal's, in a form that promtool finds no fault with", async () => {
  const journal = new Journal(pino({ enabled: false }), '1.2.3', 'sqlite:/nowhere')
  const calls = new RegistryCalls()
  const exposition = exposeMetrics(journal, calls)
  calls.add({ operation: 'Range', milliseconds: 250, failed: false })
  calls.add({ operation: 'Range', milliseconds: 250, failed: true })
  journal.turn(REPORT, REPORT.failures, 1)
  journal.turn({ ...REPORT, operations: [], failures: [], repaired: [] }, [], 1)
  journal.registryUnavailable('gone')
  journal.registryUnavailable('still gone')
  const first = await exposition.text()
  assert.equal(await exposition.text(), first, 'a second scrape counts nothing twice')
  for (const line of [
    'tweed_build_info{version="1.2.3"} 1',
    'tweed_ready 0',
    'tweed_registry_available 0',
    'tweed_registry_disconnects_total 1',
    'tweed_reconcile_turns_total 2',
    'tweed_reconcile_seconds_total 0.5',
    'tweed_kernel_overruns_total 1',
    'tweed_operations_total{kind="fdb",verb="add"} 2',
    'tweed_operation_failures_total{kind="fdb",verb="add"} 1',
    'tweed_drift_repaired_total{kind="fdb",verb="add"} 1',
    'tweed_l3_misses_total{result="answered"} 6',
    'tweed_l3_misses_total{result="refused"} 4',
    'tweed_peers{state="in sync"} 0',
    'tweed_registry_calls_total{operation="Range",result="ok"} 1',
    'tweed_registry_calls_total{operation="Range",result="failed"} 1',
    'tweed_registry_call_seconds_total{operation="Range"} 0.5',
  ]) {
    assert.ok(first.split('\n').includes(line), `${line} is missing in\n${first}`)
  }
  const check = spawn('promtool', ['check', 'metrics'], { stdio: ['pipe', 'pipe', 'pipe'] })
  check.stdin.end(first)
  const [[code], complaints] = await Promise.all([once(check, 'close'), text(check.stderr)])
  assert.equal(complaints, '')
  assert.equal(code, 0)
})
