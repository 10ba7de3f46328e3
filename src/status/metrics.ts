/**
 * `/metrics` for Prometheus. Loaded with its library at the first scrape, because an agent that nobody scrapes need not
 * hold it (22 MB); the figures themselves are the journal's.
 */

import { Counter, Gauge, Registry } from '@prometheus-io/client'
import type { Journal } from './journal.ts'
import type { RegistryCalls } from './tally.ts'

export interface Exposition {
  readonly contentType: string
  text(): Promise<string>
}

export function exposeMetrics(journal: Journal, calls: RegistryCalls): Exposition {
  const registry = new Registry()
  const registers = [registry]
  new Gauge({
    name: 'tweed_build_info',
    help: 'Which tweed this is.',
    labelNames: ['version'],
    registers,
  }).set({ version: journal.version }, 1)
  gauge('tweed_ready', 'Whether everything is as it should be (1) or not (0).', () => Number(journal.ready))
  gauge('tweed_registry_available', 'Whether the registry can be used (1) or not (0).', () =>
    Number(journal.registryUsable),
  )
  gauge(
    'tweed_lease_expiry_timestamp_seconds',
    'When our lease ends unless it is renewed; 0: never, or no lease.',
    () => (journal.leaseExpires ?? 0) / 1000,
  )
  counter(
    'tweed_registry_disconnects_total',
    'How often the registry became unavailable.',
    () => journal.counters.disconnects,
  )
  counter('tweed_reconcile_turns_total', 'Turns of the reconciler.', () => journal.counters.turns)
  counter(
    'tweed_reconcile_seconds_total',
    'Time that the turns took.',
    () => journal.counters.milliseconds / 1000,
  )
  counter(
    'tweed_kernel_overruns_total',
    'How often notifications of the kernel were lost, and made good by a dump.',
    () => journal.counters.overruns,
  )
  counter(
    'tweed_leases_refused_total',
    'Leases refused, each counted once.',
    () => journal.counters.leasesRefused,
  )
  labelled('tweed_peers', 'Leases of other hosts.', ['state'], 'gauge', () =>
    Object.entries(journal.peerCounts).map(([state, value]) => [{ state }, value]),
  )
  labelled('tweed_operations_total', 'Operations on the kernel.', ['kind', 'verb'], 'counter', () =>
    byKind(journal.operations),
  )
  labelled(
    'tweed_operation_failures_total',
    'Operations that the kernel refused.',
    ['kind', 'verb'],
    'counter',
    () => byKind(journal.operationFailures),
  )
  labelled(
    'tweed_drift_repaired_total',
    'Operations that put back what somebody else had changed.',
    ['kind', 'verb'],
    'counter',
    () => byKind(journal.repairs),
  )
  labelled(
    'tweed_l3_misses_total',
    'L3 misses; refused are those for addresses outside every lease.',
    ['result'],
    'counter',
    () => [
      [{ result: 'answered' }, journal.counters.missesAnswered],
      [{ result: 'refused' }, journal.counters.missesRefused],
    ],
  )
  labelled('tweed_registry_calls_total', 'Calls to the registry.', ['operation', 'result'], 'counter', () =>
    calls.counts.flatMap(({ operation, calls: all, failures }): [Record<string, string>, number][] => [
      [{ operation, result: 'ok' }, all - failures],
      [{ operation, result: 'failed' }, failures],
    ]),
  )
  labelled(
    'tweed_registry_call_seconds_total',
    'Time that the calls to the registry took.',
    ['operation'],
    'counter',
    () => calls.counts.map(({ operation, milliseconds }) => [{ operation }, milliseconds / 1000]),
  )
  return { contentType: registry.contentType, text: () => registry.metrics() }

  function gauge(name: string, help: string, value: () => number): void {
    new Gauge({
      name,
      help,
      registers,
      collect() {
        this.set(value())
      },
    })
  }

  function counter(name: string, help: string, value: () => number): void {
    labelled(name, help, [], 'counter', () => [[{}, value()]])
  }

  function labelled(
    name: string,
    help: string,
    labelNames: string[],
    kind: 'counter' | 'gauge',
    values: () => [Record<string, string>, number][],
  ): void {
    const Kind = kind === 'counter' ? Counter : Gauge
    const metric: Counter<string> | Gauge<string> = new Kind({
      name,
      help,
      labelNames,
      registers,
      collect() {
        metric.reset()
        for (const [labels, value] of values()) metric.inc(labels, value)
      },
    })
  }
}

/** Counts whose keys are `kind verb`. */
function byKind(counts: ReadonlyMap<string, number>): [Record<string, string>, number][] {
  return [...counts].map(([key, value]) => {
    const [kind = '', verb = ''] = key.split(' ')
    return [{ kind, verb }, value]
  })
}
