// Package push brings one message to everyone subscribed.
//
// [Hub.Publish] is where a message comes in: its app's rules are looked up, the [Log] gives
// it a position, and the [Bus] carries it to the hub of every node. There it is a parcel: a
// message with the frames that were made of it so far, one per [Encoding]. The parcel is
// posted to those shards that have subscribers for it (shard.go). A shard's pass takes all
// that is pending, joins an app's messages into one [Frame], and hands that to each
// [Subscription] (subscription.go), which knows what its subscriber may see and already has.
//
// What a subscriber missed while it was away is read from the log in pages, which all that come
// back at the same time share ([Hub.Replay], page.go).
//
// The topic (topic.go) is what a node knows of an app that has subscribers here; the log is
// what the cluster knows of its past.
//
// Who is in an app is counted by the [Presence]: seat.go has a subscription's part in it.
//
// Locks are taken in this order, and each may be left out: LocalBus.stripes, or topic.roll and
// then the locks of a [Presence]; Hub.mu, topic.mu, shard.mu; and Subscription.mu after
// topic.mu. A pass holds the Subscription.mu of several, but waits for none meanwhile. A
// subscriber's methods are called with Subscription.mu held and take no lock of this package.
// The locks of a [Log] come after LocalBus.stripes, topic.mu and Subscription.mu, and nothing
// of this package is called under them. pages.mu is held while no other lock is taken.
package push
