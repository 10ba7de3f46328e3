/** Every pair of canned states on the real kernel: whatever was there before, one turn leads to what is desired. */

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import { Reconciler } from '../../src/kernel/reconcile.ts'
import { cannedStates, type State } from '../states.ts'
import { createHost } from './fixture.ts'
import type { Host } from './namespace.ts'

for (const families of ['inet', 'both'] as const)
  describe(`every pair of canned states, ${families}`, () => {
    let host: Host
    before(async () => {
      host = await createHost()
      await host.ip('route add 172.16.0.0/16 via 192.168.1.1')
    })
    after(() => host[Symbol.asyncDispose]())

    /**
     * The picture without what the kernel chooses (indexes, ids) and, in L3-miss mode, without neighbours: which of them
     * there are is what traffic asked for, and those of the static mode are good answers.
     */
    async function reach({ name, backend, shares }: State): Promise<string[]> {
      using reconciler = await Reconciler.open({ scope: backend.scope, netns: host.path })
      reconciler.exchange([], shares)
      const { failures } = await reconciler.turn()
      assert.deepEqual(failures, [], name)
      assert.deepEqual((await reconciler.turn()).operations, [], `${name}: a second turn does nothing`)
      return (await host.picture())
        .map((line) => line.replace(/^\d+: flannel/, 'flannel').replaceAll(/nhid \d+ |^id \d+ /g, ''))
        .filter((line) => !/^(33:33|01:00:5e|ff02)/.test(line))
        .filter((line) => backend.scope.onDemand.size === 0 || !/dev flannel\S* lladdr/.test(line))
        .toSorted()
    }

    test('leads to the same kernel, whatever the path', async () => {
      const states = cannedStates(await host.index('eth0'), families)
      const pictures = new Map<string, string[]>()
      let from = 'nothing'
      for (const state of everyPair(states)) {
        const picture = await reach(state)
        const known = pictures.get(state.name)
        if (known === undefined) pictures.set(state.name, picture)
        else assert.deepEqual(picture, known, `from "${from}" to "${state.name}"`)
        assert.ok(picture.includes('172.16.0.0/16 via 192.168.1.1 dev eth0'))
        from = state.name
      }
      assert.equal(new Set([...pictures.values()].map(String)).size, states.length, 'they are all different')
    })
  })

/** A way through all states on which each follows each once, itself too (a de Bruijn sequence of pairs). */
function everyPair<T>(all: readonly T[]): T[] {
  const way = all.flatMap((one, i) => [one, ...all.slice(i + 1).flatMap((other) => [one, other])])
  return [...way, ...all.slice(0, 1)]
}
