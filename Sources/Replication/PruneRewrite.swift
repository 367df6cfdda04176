import SnapshotModel
import SnapshotRepository

extension Prune {
    func planRewrite(_ view: PruneView, _ plan: inout PrunePlan) throws(ReplicationError) {}
    func rewrite(
        _ view: PruneView, _ plan: inout PrunePlan, _ look: PruneLook
    ) throws(PruneInterruption) {}
}
