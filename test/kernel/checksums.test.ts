/** `TxChecksumOffload` on the real kernel: the feature is as the config says, for `ethtool` too, and stays so. */

import assert from 'node:assert/strict'
import { after, before, describe, test } from 'node:test'
import type { Reconciler } from '../../src/kernel/reconcile.ts'
import { createHost, Overlay } from './fixture.ts'
import type { Host } from './namespace.ts'

const FEATURE = 'tx-checksum-ip-generic'

for (const family of ['inet', 'inet6'] as const) {
  const net = new Overlay(family)

  describe(`checksum offload, ${family}`, () => {
    let host: Host
    before(async () => {
      host = await createHost()
    })
    after(() => host[Symbol.asyncDispose]())

    const isOn = async (): Promise<boolean> => {
      const line = (await host.exec('ethtool', '-k', net.link))
        .split('\n')
        .find((text) => text.includes(FEATURE))
      assert.match(line ?? '', /: (on|off)$/)
      return line?.endsWith(': on') === true
    }

    const reconcile = async (settings: object): Promise<Reconciler> =>
      net.reconciler(host, await net.backend(host, settings), [net.lease(11)])

    test('without the setting nobody looks at it', async () => {
      using reconciler = await reconcile({})
      assert.deepEqual((await reconciler.turn()).failures, [])
      await host.exec('ethtool', '-K', net.link, FEATURE, 'off')
      assert.deepEqual((await reconciler.turn()).operations, [])
      await host.exec('ethtool', '-K', net.link, FEATURE, 'on')
    })

    test('it is switched off on a link that is there, and nothing else is touched', async () => {
      using reconciler = await reconcile({ TxChecksumOffload: false })
      const { operations } = await reconciler.turn()
      assert.deepEqual(
        operations.map(({ verb, why }) => `${verb}: ${why}`),
        ['change: txChecksum true, not false'],
      )
      assert.equal(await isOn(), false)
      assert.deepEqual((await reconciler.turn()).operations, [])
    })

    test('a restart finds it so, and drift is repaired', async () => {
      using reconciler = await reconcile({ TxChecksumOffload: false })
      assert.deepEqual((await reconciler.turn()).operations, [])
      await host.exec('ethtool', '-K', net.link, FEATURE, 'on')
      assert.equal((await reconciler.turn()).repaired.length, 1)
      assert.equal(await isOn(), false)
    })

    test('the kernel tells of the drift, so that a running agent hears of it', {
      timeout: 60_000,
    }, async () => {
      const stop = new AbortController()
      const reconciler = await reconcile({ TxChecksumOffload: false })
      let repaired = 0
      for await (const report of reconciler.run(stop.signal)) {
        repaired += report.repaired.length
        if (repaired > 0) stop.abort()
        else await host.exec('ethtool', '-K', net.link, FEATURE, 'on')
      }
      assert.equal(repaired, 1)
    })

    test('a link that is made anew gets it, and true switches it on again', async () => {
      {
        using reconciler = await reconcile({ TxChecksumOffload: false })
        await host.ip(`link del ${net.link}`)
        assert.deepEqual((await reconciler.turn()).failures, [])
        assert.equal(await isOn(), false)
      }
      using reconciler = await reconcile({ TxChecksumOffload: true })
      assert.deepEqual((await reconciler.turn()).failures, [])
      assert.equal(await isOn(), true)
    })
  })
}
